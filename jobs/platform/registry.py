"""The model in MLflow's registry: versions of ``hymirec``, of which the alias ``champion`` is the published
one.

A version is the folders of encoder, recommender and codebook, recognised by a fingerprint of their files: the
same model is registered once, however often it is published.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jobs.platform import tracking

MODEL = "hymirec"
CHAMPION, PREVIOUS = "champion", "previous"
_FINGERPRINT_TAG = "hymirec.fingerprint"
_BUNDLE = "model"


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version of the model."""

    number: str
    run_id: str
    """Run that registered it and holds its files."""
    new: bool
    """Whether this call registered it."""


def fingerprint(parts: Mapping[str, Path]) -> str:
    """SHA-256 over names and content of the parts' files.

    Parameters
    ----------
    parts : mapping of str to Path
        Folder of each part.
    """
    digest = hashlib.sha256()
    for part, folder in sorted(parts.items()):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{part}/{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def find_or_register(run: tracking.StageRun, parts: Mapping[str, Path], ds: str) -> Version:
    """The version with these files; if there is none, log them as artefacts of `run` and register them."""
    from mlflow.exceptions import MlflowException

    client = tracking.client_()
    mark = fingerprint(parts)
    found = client.search_model_versions(f"name = '{MODEL}' and tags.`{_FINGERPRINT_TAG}` = '{mark}'")
    if found:
        oldest = min(found, key=lambda version: int(version.version))
        return Version(str(oldest.version), str(oldest.run_id), new=False)
    with suppress(MlflowException):  # it exists
        client.create_registered_model(MODEL, description="HyMiRec: encoder, recommender and codebook of a release")
    for part, folder in parts.items():
        run.artifact(folder, f"{_BUNDLE}/{part}")
    source = f"{client.get_run(run.run_id).info.artifact_uri}/{_BUNDLE}"
    tags = {_FINGERPRINT_TAG: mark, "hymirec.ds": ds}
    made = client.create_model_version(MODEL, source, run.run_id, tags=tags)
    return Version(str(made.version), run.run_id, new=True)


def promote(version: Version, release_id: str) -> None:
    """Point ``champion`` at a version, and ``previous`` at the champion before it."""
    from mlflow.exceptions import MlflowException

    client = tracking.client_()
    champion = None
    with suppress(MlflowException):  # there is no champion yet
        champion = str(client.get_model_version_by_alias(MODEL, CHAMPION).version)
    client.set_model_version_tag(MODEL, version.number, "hymirec.release", release_id)
    if champion == version.number:
        return
    if champion is not None:
        client.set_registered_model_alias(MODEL, PREVIOUS, champion)
    client.set_registered_model_alias(MODEL, CHAMPION, version.number)

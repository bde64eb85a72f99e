"""The model in MLflow's registry: versions of ``hymirec`` and the aliases that say which one is what.

``champion`` is the version of the current release, ``previous`` the champion before it, ``challenger`` the newest one
that is to replace the champion or was refused. A version is the folders of encoder, item space, recommender and
codebook, recognised by a fingerprint of their files: the same model is registered once, however often it is published.
Beside them, MLmodel says what the model takes and gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.platform import signature, tracking
from jobs.platform.errors import TrackingError
from jobs.platform.gate import Verdict
from jobs.platform.releases import Release
from jobs.platform.scorecard import sentence
from jobs.platform.tracked_runs import StageRun

MODEL = "hymirec"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
_FINGERPRINT_TAG = "hymirec.fingerprint"
_RELEASE_TAG = "hymirec.release"
_BUNDLE = "model"
_MOST_CHARACTERS = 4500  # of a tag's value; MLflow takes 5,000


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version of the model."""

    number: str
    fingerprint: str
    """Of its files, see :func:`fingerprint`; unlike the number, the same in every MLflow."""


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


def find_or_register(run: StageRun, parts: Mapping[str, Path], ds: str) -> Version:
    """The version with these files; if there is none, log them as artefacts of `run` and register them."""
    from mlflow.exceptions import MlflowException

    client = tracking.client_()
    mark = fingerprint(parts)
    number = _number(mark)
    if number is not None:
        return Version(number, mark)
    with suppress(MlflowException):  # it exists
        client.create_registered_model(MODEL, description="HyMiRec: encoder, recommender and codebook of a release")
    for part, folder in parts.items():
        run.artifact(folder, f"{_BUNDLE}/{part}")
    run.text(signature.mlmodel(parts), f"{_BUNDLE}/MLmodel")
    source = f"{client.get_run(run.run_id).info.artifact_uri}/{_BUNDLE}"
    tags = {_FINGERPRINT_TAG: mark, "hymirec.ds": ds}
    made = client.create_model_version(MODEL, source, run.run_id, tags=tags)
    return Version(str(made.version), mark)


def challenge(version: Version, verdict: Verdict, evaluation: Mapping[str, Any]) -> None:
    """Point ``challenger`` at a version, unless it is the champion, and note the gate's verdict on it."""
    if version.number != _alias(CHAMPION):
        tracking.client_().set_registered_model_alias(MODEL, CHALLENGER, version.number)
        note_verdict(version, verdict, evaluation)


def note_verdict(
    version: Version,
    verdict: Verdict,
    evaluation: Mapping[str, Any],
    release: Release | None = None,
    *,
    current: bool = False,
) -> None:
    """Tag a version with the verdict on it, in a word and in full, and describe it for people.

    The champion's page is about the release it serves: only that one, ``current``, may change it.
    """
    if not current and version.number == _alias(CHAMPION):
        return
    client = tracking.client_()
    word = "passed" if verdict.passed else f"refused: {verdict.reasons}"
    client.set_model_version_tag(MODEL, version.number, "hymirec.gate", word[:_MOST_CHARACTERS])
    client.set_model_version_tag(MODEL, version.number, "hymirec.verdict", verdict.json()[:_MOST_CHARACTERS])
    client.update_model_version(MODEL, version.number, description(verdict, evaluation, release))


def description(verdict: Verdict, evaluation: Mapping[str, Any], release: Release | None) -> str:
    """A version in Markdown: where it serves, how good it was, and what the gate said."""
    where = "No release came of the evaluation below."
    if release is not None:
        versions = ", ".join(
            f"{part.replace('_', ' ')} `{name}`" for part, name in release.manifest["versions"].items()
        )
        where = f"Release `{release.id}` in `{release.warehouse.uri}/releases`, of day {release.ds}: {versions}."
    figures = (
        f"On the {evaluation['holdout_days']} days from {evaluation['cut'][:10]}, {evaluation['items']:,} items "
        f"ranked: {sentence(evaluation)}."
    )
    gate = "The gate passed." if verdict.passed else f"The gate refused: {verdict.reasons}."
    return "\n\n".join((where, figures, gate))


def promote(release: Release) -> str:
    """Point ``champion`` at a release's version, and ``previous`` at the champion before it; returns its number.

    A challenger that became the champion is a challenger no more.

    Raises
    ------
    TrackingError
        If the registry does not have the version.
    """
    client, mark = tracking.client_(), release.manifest["mlflow"]["fingerprint"]
    number = _number(mark)
    if number is None:
        raise TrackingError(
            f"MLflow at {tracking.tracking_uri()}: seen no version of {MODEL} with the fingerprint {mark}, which "
            f"release {release.id} names; allowed: the MLflow that it was published with; set MLFLOW_TRACKING_URI"
        )
    champion, challenger = _alias(CHAMPION), _alias(CHALLENGER)
    client.set_model_version_tag(MODEL, number, _RELEASE_TAG, release.id)
    if champion != number:
        if champion is not None:  # first: cut short behind it, a second call still finds the champion before
            client.set_registered_model_alias(MODEL, PREVIOUS, champion)
        client.set_registered_model_alias(MODEL, CHAMPION, number)
    if challenger == number:
        client.delete_registered_model_alias(MODEL, CHALLENGER)
    return number


def named_releases() -> dict[str, str]:
    """Id of the latest release of each version that an alias names, by alias."""
    client = tracking.client_()
    found = {}
    for alias in (CHAMPION, CHALLENGER, PREVIOUS):
        number = _alias(alias)
        if number is not None:
            release = client.get_model_version(MODEL, number).tags.get(_RELEASE_TAG)
            if release:
                found[alias] = str(release)
    return found


def _number(mark: str) -> str | None:
    """Number of the oldest version with this fingerprint."""
    found = tracking.client_().search_model_versions(f"name = '{MODEL}' and tags.`{_FINGERPRINT_TAG}` = '{mark}'")
    return min((str(version.version) for version in found), key=int, default=None)


def _alias(name: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return str(tracking.client_().get_model_version_by_alias(MODEL, name).version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None  # there is no model yet, or nobody has the alias

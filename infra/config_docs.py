"""Write docs/configuration.md from the settings' own texts: ``make docs``.

The text under a field of a settings class, and the first paragraph of the class, are what the page says of them. A
field without a text is an error, so the page has no gaps.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
import types
import typing
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import pairwise
from typing import Any, Literal

from hymirec_model.errors import HymirecError
from jobs.platform.local import REPOSITORY
from jobs.platform.profile import Profile

PAGE = REPOSITORY / "docs" / "configuration.md"
_WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", types.NoneType: "null"}
_HEAD = """\
# Configuration

This page is written by `make docs` from the texts in `jobs/platform/profile.py` and `hymirec_model/config.py`; change
them there.

A profile is one YAML file with the settings of a refresh: a file in `infra/profiles`, chosen by its name, or any other,
chosen by its path. It names only what differs from the defaults below. A key that does not exist, a key that is given
twice and a value that is not allowed each stop the run before its first job. `infra/profiles/demo.yaml` is an example.
"""


class UndocumentedSetting(HymirecError):
    """A setting has no text."""


def page(profile: type = Profile) -> str:
    """Return the whole page.

    Parameters
    ----------
    profile : type
        Dataclass of all settings; a field whose type is a dataclass is a section.

    Raises
    ------
    UndocumentedSetting
        If a field, or the class of a section, has no text.
    """
    hints = typing.get_type_hints(profile)
    sections = {f.name: hints[f.name] for f in fields(profile) if is_dataclass(hints[f.name])}
    parts = [_HEAD, "## Top level\n", table(profile, leave_out=sections)]
    for name, section in sections.items():
        parts += [f"## {name}\n", f"{_summary(section)}\n", table(section, prefix=f"{name}.")]
    text = "\n".join(parts)
    for name, section in sections.items():  # how a profile spells it
        text = text.replace(f"`{section.__name__}.", f"`{name}.")
    return text


def table(section: type, prefix: str = "", leave_out: typing.Collection[str] = ()) -> str:
    """Return the table of a section's settings.

    Parameters
    ----------
    section : type
        A dataclass.
    prefix : str, default=""
        Put before the keys.
    leave_out : collection of str
        Fields that are not settings.

    Raises
    ------
    UndocumentedSetting
        If a field has no text.
    """
    texts, hints = field_texts(section), typing.get_type_hints(section)
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for entry in fields(section):
        if entry.name in leave_out:
            continue
        if not texts.get(entry.name):
            raise UndocumentedSetting(
                f"{section.__module__}.{section.__name__}.{entry.name}: seen no text; allowed: a docstring in the line "
                "under the field"
            )
        cells = f"`{prefix}{entry.name}`", _type(hints[entry.name]), _default(entry), texts[entry.name]
        lines.append(f"| {' | '.join(_cell(text) for text in cells)} |")
    return "\n".join(lines) + "\n"


def field_texts(section: type) -> dict[str, str]:
    """Return the text under each field of a dataclass, by name, as one line of Markdown."""
    body = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for statement, following in pairwise(body.body):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = _markdown(text)
    return found


def _summary(section: type) -> str:
    text = vars(section).get("__doc__") or ""
    if not text or text.startswith(f"{section.__name__}("):  # what dataclass writes itself
        raise UndocumentedSetting(f"{section.__module__}.{section.__name__}: seen no docstring; allowed: one")
    return "\n\n".join(_markdown(paragraph) for paragraph in re.split(r"\n\s*\n", text))


def _markdown(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _or(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _type(hint: Any) -> str:
    """A type in the words of a profile."""
    if hint in _WORDS:
        return _WORDS[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _or([f"`{word}`" for word in arguments])
    if origin is types.UnionType:
        return _or([_type(argument) for argument in arguments])
    if origin is tuple and arguments[1:] == (...,):
        return f"list of {_type(arguments[0])}"
    raise UndocumentedSetting(f"type {hint}: seen no words for it; allowed: types that infra/config_docs.py knows")


def _default(entry: Field[Any]) -> str:
    value = entry.default if entry.default_factory is MISSING else entry.default_factory()
    if value is MISSING:
        return "–"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def main() -> int:
    """Write the page."""
    try:
        PAGE.write_text(page(), encoding="utf-8")
    except UndocumentedSetting as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {PAGE.relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

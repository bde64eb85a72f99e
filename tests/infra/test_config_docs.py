"""docs/configuration.md is what the settings' own texts say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from infra import config_docs
from infra.config_docs import UndocumentedSetting, page, table


@dataclass
class Engine:
    """What drives.

    Not in the first line.
    """

    power: float | None = None
    """Watts, as ``Engine.kind`` has them:
    or | none."""
    kind: Literal["a", "b", "c"] = "b"
    """Kind."""
    sizes: tuple[int, ...] = (1, 2)
    """Sizes."""


@dataclass
class Car:
    """Everything."""

    name: str
    """Name."""
    engine: Engine = field(default_factory=Engine)


@dataclass
class Bare:
    """Everything."""

    told: int = 0
    """Told."""
    untold: bool = False

    not_a_setting = "a text further down is no field's"


@dataclass
class Nameless:
    engine: Bare = field(default_factory=Bare)


@dataclass
class Silent:
    x: int = 1
    """Told."""


@dataclass
class HasSilent:
    """Everything."""

    silent: Silent = field(default_factory=Silent)


@dataclass
class Odd:
    """Everything."""

    x: dict[str, int] = field(default_factory=dict)
    """A type without words."""


def test_the_committed_page_is_the_one_that_is_made(repository: Path) -> None:
    committed = (repository / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert committed == page(), "run `make docs`"
    assert repository / "docs" / "configuration.md" == config_docs.PAGE


def test_a_section_is_a_table_in_the_words_of_a_profile() -> None:
    made = page(Car)
    assert "| `name` | text | – | Name. |\n" in made
    assert "## engine\n\nWhat drives.\n\nNot in the first line.\n" in made
    assert "| `engine.power` | number or null | `null` | Watts, as `engine.kind` has them: or \\| none. |\n" in made
    assert "| `engine.kind` | `a`, `b` or `c` | `b` | Kind. |\n" in made
    assert "| `engine.sizes` | list of integer | `[1, 2]` | Sizes. |\n" in made


def test_a_field_without_a_text_is_an_error_that_names_it() -> None:
    with pytest.raises(UndocumentedSetting, match=r"Bare\.untold: seen no text; allowed: a docstring in"):
        table(Bare)
    with pytest.raises(UndocumentedSetting, match=r"Bare\.untold"):
        page(Nameless)


def test_a_section_without_a_docstring_and_an_unknown_type_are_errors() -> None:
    with pytest.raises(UndocumentedSetting, match=r"Silent: seen no docstring"):
        page(HasSilent)
    with pytest.raises(UndocumentedSetting, match=r"type dict\[str, int\]: seen no words for it"):
        table(Odd)

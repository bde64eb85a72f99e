"""Compare two releases: what they are made of, their figures, and how far people's lists move from A to B.

Reads two releases: manifest, evaluation, ids of all items and users, and interests and lists of a sample of the users
that are in both. Writes nothing.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from jobs.platform import cli, releases
from jobs.platform.comparison import QUANTILES, Comparison, Figure, People, compare, figures, quantiles
from jobs.platform.manifest import ReleaseError
from jobs.platform.releases import Release
from jobs.platform.scorecard import label
from jobs.platform.warehouse import Warehouse

SHOWN = 5  # people that changed most
_MODELS = ("encoder", "item_space", "codebook", "recommender")
_CLOSER = """\
a closer look, in the current release: make inspect USER=ID
in another one: .venv/bin/python -m jobs.inspect_user --warehouse URI --release ID USER"""


def main(
    warehouse: cli.WarehouseOption,
    a: Annotated[
        str | None,
        typer.Option("--a", metavar="ID", help="Default: the release before B.", show_default=False),
    ] = None,
    b: Annotated[
        str | None,
        typer.Option("--b", metavar="ID", help="Default: the current release.", show_default=False),
    ] = None,
    users: Annotated[int, typer.Option("--users", min=1, help="How many of the users in both to compare.")] = 200,
    n: Annotated[int, typer.Option("-n", min=1, help="Length of their lists.")] = 50,
) -> None:
    """Compare two releases: who changes from A to B, and by how much."""
    wh = Warehouse(warehouse)
    first, second = find(wh, a, b)
    cli.console().print(render(compare(first, second, users, n)))


def find(wh: Warehouse, a: str | None, b: str | None) -> tuple[Release, Release]:
    """Open release B, by default the current one, and release A, by default the one before B.

    Raises
    ------
    ReleaseError
        If one is not there or damaged, both are the same, or A is not given and there is none before B.
    """
    second = Release.open(wh, b)
    others = [name for name in releases.all_ids(wh) if name != second.id]
    allowed = f"allowed with A=ID or --a: {', '.join(others) or 'none, it is the only one; publish another day first'}"
    if a is None and second.parent not in others:
        gone = f" any more ({second.parent} was removed)" if second.parent else ""
        raise ReleaseError(f"a: not given, and release {second.id} has no release before it{gone}; {allowed}")
    if a == second.id:
        raise ReleaseError(f"a: seen {a}, which is b too, so that all is equal; {allowed}")
    return Release.open(wh, a or second.parent), second


def render(found: Comparison) -> Group:
    """A comparison as rich tables."""
    parts = [models(found), sizes(found), evaluation(found)]
    if found.people is None:
        return Group(*parts, "people: no user is in both releases")
    parts.append(people(found, found.people))
    changed = found.people.most_changed(SHOWN)
    return Group(*parts, *([most_changed(found.people, changed)] if changed else []))


def models(found: Comparison) -> Group:
    """Which releases these are, and which of their models differ."""
    table = _table("", "A", "B", "")
    manifests = found.a.manifest, found.b.manifest
    rows = {
        "events": [f"{manifest['data']['from']} to {manifest['data']['until']}" for manifest in manifests],
        "release before": [manifest["parent"] or "none" for manifest in manifests],
        "chosen": [about["model"]["chosen"] for about in manifests],
        "fingerprint in MLflow": [about["mlflow"]["fingerprint"][:12] for about in manifests],
        **{name: [manifest["versions"][name] for manifest in manifests] for name in _MODELS},
        "merge": [f"{about['merge']}, scale {about['scale']:.1f}" for about in (m["retrieval"] for m in manifests)],
    }
    for name, (one, two) in rows.items():
        told = name in (*_MODELS, "merge")
        table.add_row(name, one, two, ("same" if one == two else "differs") if told else "")
    return _section(f"from release {found.a.id} (A) to {found.b.id} (B)", table)


def sizes(found: Comparison) -> Group:
    """Items, users and generations of codes."""
    table = _table("", "A", "B", "kept", "added", "gone")
    for name, size in (("items", found.items), ("users", found.users)):
        table.add_row(name, *(f"{count:,}" for count in (size.a, size.b, size.kept, size.added, size.gone)))
    table.add_row("code generations", *(str(side.manifest["shapes"]["generations"]) for side in (found.a, found.b)))
    return _section("sizes", table)


def evaluation(found: Comparison) -> Group:
    """Figures side by side, and those of both models on the same users where B's evaluation has them."""
    measured = figures(*found.evaluations, found.a.id)
    there = any(figure.a_there is not None for figure in measured)
    more = ["A's model, B's users", "B - A, B's users (95 %)"] if there else []
    table = _table("metric", "A", "B", "B - A", *more)
    for figure in measured:
        table.add_row(label(figure.metric), *_cells(figure)[: 3 + len(more)])
    about = [
        f"{side['users']:,} users, {side['holdout_days']} days from {side['cut'][:10]}" for side in found.evaluations
    ]
    return _section("evaluation of each release's model", table, f"A: {about[0]}; B: {about[1]}")


def people(found: Comparison, sampled: People) -> Group:
    """How far lists and interests of the sampled people moved."""
    count, n = len(sampled.user_ids), sampled.n
    table = _table("", "mean", *QUANTILES)
    rows = {f"overlap@{n}": sampled.overlap, "new items in B's list": sampled.new_items}
    if sampled.cosine is not None:
        rows["cosine of matched interests"] = sampled.cosine
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.3f}" for value in quantiles(values)))
    same = int((sampled.overlap == 1).sum())
    note = f"{same:,} of these users keep all items of their list; new items are those that A does not hold"
    if sampled.cosine is None:
        spaces = " and ".join(side.manifest["versions"]["space"] for side in (found.a, found.b))
        note += f"\nno cosine of interests: they lie in two item spaces, {spaces}"
    title = f"{count:,} of the {found.users.kept:,} users in both: their first {n} items, without those they have seen"
    return _section(title, table, note)


def most_changed(sampled: People, changed: list[int]) -> Group:
    """The people whose lists share least, for a closer look."""
    cosine = [] if sampled.cosine is None else ["cosine"]
    table = _table("user", f"overlap@{sampled.n}", "new items", *cosine, "events in A", "events in B")
    for place in changed:
        shares = [array[place] for array in (sampled.overlap, sampled.new_items, sampled.cosine) if array is not None]
        events = (f"{count:,}" for count in sampled.n_events[:, place])
        table.add_row(Text(sampled.user_ids[place]), *(f"{share:.3f}" for share in shares), *events)
    return _section(f"the {len(changed)} of them who change most", table, _CLOSER)


def _cells(figure: Figure) -> list[str]:
    """A, B and their difference; A on B's days, and the difference there."""
    a, b, there = ("–" if mean is None else f"{mean:.3f}" for mean in (figure.a, figure.b, figure.a_there))
    apart = _difference(figure.b, figure.a)
    apart_there = _difference(figure.b, figure.a_there)
    if figure.lead is not None:
        apart_there += f" ({figure.lead['low']:+.3f} to {figure.lead['high']:+.3f})"
    return [a, b, apart, there, apart_there]


def _difference(mean: float | None, other: float | None) -> str:
    return "–" if mean is None or other is None else f"{mean - other:+z.3f}"


def _table(*names: str) -> Table:
    """A table whose first column is text and whose other ones are figures."""
    table = Table()
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place else "left")
    return table


def _section(title: str, table: Table, note: str = "") -> Group:
    """A table between lines of text, which may be wider than it is."""
    notes = [Text(line, style="table.caption") for line in note.splitlines()]
    return Group(Text(title, style="table.title"), table, *notes)


if __name__ == "__main__":
    cli.run(main)

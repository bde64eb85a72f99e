"""Drift of the input: a day's statistics beside those of the accepted days before it, and what a breach does.

Counts are compared by their ratio to the median of those days, shares by how far they rise above it, distributions by
their Jensen-Shannon distance (base 2: from 0, the same, to 1, nothing in common) to the sum of those days. It needs no
smoothing where a value is new or gone, as the population stability index does. The days should span whole weeks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from scipy.spatial.distance import jensenshannon

from jobs.platform.errors import ContractBreach
from jobs.platform.input_statistics import DISTRIBUTIONS, OTHER, Statistics
from jobs.platform.profile import ContractConfig
from jobs.platform.warehouse import Partition

COUNTS = ("rows", "users", "items")
SHARES = ("top_user", "top_item", "new_items", "no_seq")
LEAST_EXPECTED = 20
"""Events that a value of a distribution should have on such a day; rarer values are compared as one."""
_MOST_NAMED = 6  # findings in a message


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure of a day beside what is usual."""

    table: str
    day: str
    figure: str
    seen: str
    allowed: str
    used: float
    """How much of what is allowed it uses: above 1 is a breach."""

    def __str__(self) -> str:
        return f"table {self.table}, day {self.day}: seen {self.seen}; allowed: {self.allowed}"


@dataclass(slots=True)
class Drift:
    """What the comparison of a run's days found."""

    days: dict[str, Statistics]
    """Of the run; one that broke the contract and was let pass has ``drift``, which says how."""
    usual: dict[str, Statistics] = field(default_factory=dict)
    """What the run's own day was compared with, oldest first."""
    findings: list[Finding] = field(default_factory=list)
    unchecked: str = ""
    """Why the run's own day was not compared; empty if it was."""

    @property
    def breaches(self) -> list[Finding]:
        """Findings beyond what is allowed, the worst first."""
        return sorted((finding for finding in self.findings if finding.used > 1), key=lambda finding: -finding.used)

    def of_day(self, ds: str) -> dict[str, float]:
        """How much of what is allowed each figure of a day uses, by ``table.figure``."""
        return {f"{found.table}.{found.figure}": found.used for found in self.findings if found.day == ds}

    def __str__(self) -> str:
        lines = [f"drift:  not checked: {self.unchecked}"] if self.unchecked else []
        if self.findings:
            nearest = max(self.findings, key=lambda finding: finding.used)
            checked = f"{len({f.day for f in self.findings}):,} days checked, {len(self.breaches):,} breaches"
            lines.append(f"drift:  {checked}; nearest to its limit: {nearest}")
        lines += [f"  let pass by contract.drift: {breach}" for breach in self.breaches]
        return "\n".join(lines)


def usual_days(chain: Sequence[Partition]) -> dict[str, Statistics]:
    """Statistics of accepted days that later days are compared with, oldest first.

    Parameters
    ----------
    chain : sequence of Partition
        As :func:`jobs.platform.lineage.accepted_chain` returns them; a partition without statistics adds nothing.
    """
    usual: dict[str, Statistics] = {}
    for partition in chain:
        for day, statistics in partition.info.get("statistics", {}).items():
            _take_in(usual, day, statistics)
    return usual


def compare_days(
    days: Mapping[str, Statistics],
    before: Mapping[str, Statistics],
    checked: Collection[str],
    contract: ContractConfig,
) -> Drift:
    """Compare each day of a run with the days before it, those of the same run included.

    Parameters
    ----------
    days : mapping of str to Statistics
        Those of the run, oldest first; the last is its own.
    before : mapping of str to Statistics
        What :func:`usual_days` returned.
    checked : collection of str
        Days of ``days`` to compare; the others only count as days before.
    contract : ContractConfig

    Returns
    -------
    Drift
    """
    drift = Drift({day: dict(statistics) for day, statistics in days.items()})
    usual = dict(before)
    for day, statistics in drift.days.items():
        drift.usual = dict(list(usual.items())[-contract.drift_days :])
        drift.unchecked = _too_little(drift.usual, contract)
        findings = [] if drift.unchecked or day not in checked else _compare(day, statistics, drift.usual, contract)
        drift.findings += findings
        if any(finding.used > 1 for finding in findings):
            statistics["drift"] = contract.drift
        _take_in(usual, day, statistics)
    return drift


def compare_catalog(ds: str, seen: Mapping[str, Any], before: Mapping[str, Any], c: ContractConfig) -> list[Finding]:
    """Compare the facts of a catalogue with those of the one that it continues.

    A catalogue is a whole, without the ups and downs of days: the run before is enough to compare it with.

    Parameters
    ----------
    ds : str
    seen, before : mapping
        ``items``, ``text_chars`` (mean length of a text) and ``no_category`` (share of items), from the table's info.
    c : ContractConfig
    """
    if before["items"] < c.min_drift_rows or "text_chars" not in before:
        return []
    what = "in the catalogue before"
    return [
        *(_count("catalog", ds, name, seen[name], before[name], what, c) for name in ("items", "text_chars")),
        _share("catalog", ds, "no_category", seen["no_category"], before["no_category"], what, c),
    ]


def stop_on_breach(drift: Drift, contract: ContractConfig) -> None:
    """Stop the run where a day broke the contract and ``contract.drift`` says so.

    Raises
    ------
    ContractBreach
        Names what was seen, what is allowed and how to let it pass, the worst first.
    """
    if contract.drift != "stop" or not drift.breaches:
        return
    named = "; ".join(map(str, drift.breaches[:_MOST_NAMED]))
    more = f"; and {len(drift.breaches) - _MOST_NAMED:,} more" if len(drift.breaches) > _MOST_NAMED else ""
    raise ContractBreach(
        f"drift: {named}{more}; nothing was accepted: correct the data and import the day again; if it is right, run "
        "the day with drift: accept (an exception, which later days are not compared with) or drift: restart (later "
        "days are compared from this one on)"
    )


def distance(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Jensen-Shannon distance, base 2, of two distributions given as counts, each with one count or more."""
    values = sorted(one.keys() | other.keys())
    found = jensenshannon([one.get(v, 0) for v in values], [other.get(v, 0) for v in values], base=2)
    return 0.0 if math.isnan(found) else float(found)  # of equal ones rounding can make the root of less than 0


def _take_in(usual: dict[str, Statistics], day: str, statistics: Statistics) -> None:
    """Add a day to the usual ones as far as what was decided about it says."""
    decided = statistics.get("drift")
    if decided == "restart":
        usual.clear()
    if decided in (None, "restart"):
        usual[day] = statistics


def _too_little(usual: Mapping[str, Statistics], contract: ContractConfig) -> str:
    if len(usual) < contract.min_drift_days:
        return f"{len(usual):,} days to compare with; {contract.min_drift_days:,} are needed (contract.min_drift_days)"
    rows = median(day["rows"] for day in usual.values())
    if rows < contract.min_drift_rows:
        least = f"{contract.min_drift_rows:,} are needed (contract.min_drift_rows)"
        return f"the days before have a median of {rows:,.0f} events; {least}"
    return ""


def _compare(day: str, seen: Statistics, usual: Mapping[str, Statistics], contract: ContractConfig) -> list[Finding]:
    what = f"is the median of {len(usual):,} days"
    medians = {name: median(other[name] for other in usual.values()) for name in (*COUNTS, *SHARES)}
    return [
        *(_count("events", day, name, seen[name], medians[name], what, contract) for name in COUNTS),
        *(_share("events", day, name, seen[name], medians[name], what, contract) for name in SHARES),
        *(_distribution(day, name, seen[name], list(usual.values()), contract) for name in DISTRIBUTIONS),
    ]


def _count(table: str, day: str, name: str, seen: float, usual: float, what: str, contract: ContractConfig) -> Finding:
    most = contract.max_count_ratio
    return Finding(
        table,
        day,
        name,
        f"{name} {seen:,.0f} where {usual:,.0f} {what}",
        f"{usual / most:,.0f} to {usual * most:,.0f} (contract.max_count_ratio {most:g})",
        abs(math.log(seen / usual)) / math.log(most),
    )


def _share(table: str, day: str, name: str, seen: float, usual: float, what: str, contract: ContractConfig) -> Finding:
    most = contract.max_share_rise
    return Finding(
        table,
        day,
        name,
        f"{name} {seen:.3f} where {usual:.3f} {what}",
        f"up to {usual + most:.3f} (contract.max_share_rise {most:g})",
        (seen - usual) / most,
    )


def _distribution(
    day: str, name: str, seen: Mapping[str, int], usual: Sequence[Statistics], contract: ContractConfig
) -> Finding:
    setting = "max_hour_distance" if name == "hour" else "max_distance"
    most = getattr(contract, setting)
    pooled: Counter[str] = Counter()
    for other in usual:
        pooled.update(other[name])
    rows, total = sum(seen.values()), pooled.total()
    if name != "hour":  # of which there are 24
        # Of values that a day has a few times only, chance alone makes two days differ, and more of them the more.
        common = {value for value, count in pooled.items() if count * rows >= LEAST_EXPECTED * total}
        seen, pooled = _folded(seen, common), _folded(pooled, common)
    far = distance(seen, pooled)
    moved = max(sorted(seen.keys() | pooled.keys()), key=lambda v: abs(seen.get(v, 0) / rows - pooled[v] / total))
    return Finding(
        "events",
        day,
        name,
        f"{name} at a Jensen-Shannon distance of {far:.3f} from {len(usual):,} days, most of all {moved} with a share "
        f"of {seen.get(moved, 0) / rows:.3f} instead of {pooled[moved] / total:.3f}",
        f"{most:g} (contract.{setting})",
        far / most,
    )


def _folded(counts: Mapping[str, int], common: Collection[str]) -> Counter[str]:
    """Counts of the common values, and of all others together."""
    found: Counter[str] = Counter()
    for value, count in counts.items():
        found[value if value in common else OTHER] += count
    return found

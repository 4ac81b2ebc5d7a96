"""Was anything lost or doubled? What was sent is recounted and compared with what is there; every difference is a sentence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

import orjson

from deploy.faults.audit_store import MonthSum, Row, Statement
from deploy.faults.traffic import Usage
from deploy.faults.world_store import LINES

_NOTHING: Final = (0, Decimal(0), 0, Decimal(0))
Sums = tuple[int, Decimal, int, Decimal]
Key = tuple[str | None, str | None, str, str]


class Event(NamedTuple):
    """An event as a consumer gets it; `sent_at` by the relay's clock, in milliseconds."""

    event_id: str
    value: bytes
    sent_at: int


@dataclass(frozen=True, slots=True)
class Found:
    """All that is there at the end."""

    ledger: Sequence[Row]
    sums: Sequence[MonthSum]
    outcomes: Mapping[tuple[str, str], int]
    statements: Sequence[Statement]
    statement_events: Sequence[Event]
    period_events: Sequence[Event]
    received: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many records are missing, how many are there too often, and everything that is not as it must be."""

    lost: int
    doubled: int
    findings: list[str]


def audit(
    usage: Mapping[str, Usage], others: Mapping[tuple[str, str], int], months: Sequence[str], found: Found
) -> Verdict:
    """Compare what was sent with what is there; `months` are those that are closed."""
    times = Counter(row.record_id for row in found.ledger)
    lost = [name for name in usage if name not in times]
    doubled = [name for name, number in times.items() if number > 1 or name not in usage]
    findings = [f"{name} was lost" for name in lost] + [
        f"{name} is there {times[name]} times" for name in doubled
    ]
    findings += _rows(usage, found.ledger)
    findings += _outcomes(usage, others, found)
    findings += _differences("monthly usage", added(usage.values()), _summed(found.sums))
    findings += _statements(months, found)
    stated = _stated(found.statements)
    owned = {key: sums for key, sums in added(usage.values()).items() if key[0] is not None}
    findings += _differences("the statements together", owned, stated)
    findings += _events(months, found)
    return Verdict(len(lost), sum(times[name] - (name in usage) for name in doubled), findings)


def added(usage: Iterable[Usage]) -> dict[Key, Sums]:
    """Attempts, answered and billed seconds and cost by account, tenant, class and month."""
    sums: defaultdict[Key, Sums] = defaultdict(lambda: _NOTHING)
    for each in usage:
        key = (each.account, each.tenant, each.usage_class, each.month)
        attempts, answered, billed, cost = sums[key]
        sums[key] = (
            attempts + 1,
            answered + each.answered_seconds,
            billed + each.billed_seconds,
            cost + each.cost,
        )
    return dict(sums)


def _rows(usage: Mapping[str, Usage], ledger: Sequence[Row]) -> Iterator[str]:
    for row in ledger:
        wanted = usage.get(row.record_id)
        if wanted is not None and row.usage != wanted:
            yield f"{row.record_id} is {row.usage} instead of {wanted}"
        if row.late != (str(row.period)[:7] != row.usage.month) or str(row.period)[:7] < row.usage.month:
            yield f"{row.record_id} of {row.usage.month} is posted to {row.period}, late {row.late}"


def _outcomes(
    usage: Mapping[str, Usage], others: Mapping[tuple[str, str], int], found: Found
) -> Iterator[str]:
    wanted = {**others, ("posted", ""): len(usage)}
    for key in sorted(wanted.keys() | found.outcomes.keys()):
        if wanted.get(key, 0) != found.outcomes.get(key, 0):
            yield f"{key}: {found.outcomes.get(key, 0)} counted, {wanted.get(key, 0)} sent"
    if sum(found.outcomes.values()) != found.received:
        yield f"received {found.received}, but outcomes add up to {sum(found.outcomes.values())}"


def _summed(rows: Sequence[MonthSum]) -> dict[Key, Sums]:
    return {
        (row.account, row.tenant, row.usage_class, str(row.month)[:7]): (
            row.attempts,
            row.answered_seconds,
            row.billed_seconds,
            row.cost,
        )
        for row in rows
    }


def _stated(statements: Sequence[Statement]) -> dict[Key, Sums]:
    """What all statements say together, by the month of usage: late usage stands in a later month's statement."""
    sums: defaultdict[Key, Sums] = defaultdict(lambda: _NOTHING)
    for statement in statements:
        for line in orjson.loads(statement.body)["lines"]:
            key = (statement.account, statement.tenant, line["usage_class"], line["usage_period"])
            attempts, answered, billed, cost = sums[key]
            sums[key] = (
                attempts + line["attempts"],
                answered + Decimal(line["answered_seconds"]),
                billed + line["billed_seconds"],
                cost + Decimal(line["cost"]),
            )
    return dict(sums)


def _differences(what: str, wanted: Mapping[Key, Sums], found: Mapping[Key, Sums]) -> Iterator[str]:
    for key in sorted(wanted.keys() | found.keys(), key=str):
        if wanted.get(key, _NOTHING) != found.get(key, _NOTHING):
            yield f"{what}, {key}: {found.get(key, _NOTHING)} instead of {wanted.get(key, _NOTHING)}"


def _statements(months: Sequence[str], found: Found) -> Iterator[str]:
    owners = {(line.account, line.tenant) for line in LINES} | {(line.account, None) for line in LINES}
    wanted = Counter((month, *owner) for month in months for owner in owners)
    there = Counter((str(each.period)[:7], each.account, each.tenant) for each in found.statements)
    for month, account, tenant in wanted - there:
        yield f"{month}: {account}/{tenant} has no statement"
    for month, account, tenant in there - wanted:
        yield f"{month}: {account}/{tenant} has {there[month, account, tenant]} statements"
    for each in found.statements:
        lines: list[dict[str, Any]] = orjson.loads(each.body)["lines"]
        total = sum((Decimal(line["cost"]) for line in lines), Decimal(0))
        said = Decimal(orjson.loads(each.body)["totals"]["usage_cost"])
        if total != said:
            yield f"{each.period}: {each.account}/{each.tenant} totals {said}, its lines {total}"


def _events(months: Sequence[str], found: Found) -> Iterator[str]:
    stored = {each.statement_id: each.sha256 for each in found.statements}
    heard = {event.event_id: orjson.loads(event.value)["sha256"] for event in found.statement_events}
    for missing in stored.keys() - heard.keys():
        yield f"no event told of statement {missing}"
    for unknown in heard.keys() - stored.keys():
        yield f"an event told of {unknown}, which is no statement"
    yield from (
        f"the event of {each} carries another hash"
        for each in heard.keys() & stored.keys()
        if heard[each] != stored[each]
    )
    periods = Counter(
        {
            event.event_id: (told["account"], told["period"])
            for event in found.period_events
            for told in [orjson.loads(event.value)]
        }.values()
    )
    wanted = Counter((account, month) for month in months for account in {line.account for line in LINES})
    yield from _told_too_early(found)
    if periods != wanted:
        yield f"periods.closed told of {sorted(periods.items())} instead of {sorted(wanted.items())}"


def _told_too_early(found: Found) -> Iterator[str]:
    """Months that were told of before the last of their statements was heard for the first time (C5)."""
    heard: defaultdict[tuple[str, str], int] = defaultdict(int)
    for event in _first_heard(found.statement_events):
        told = orjson.loads(event.value)
        month = (told["account"], told["period"])
        heard[month] = max(heard[month], event.sent_at)
    for event in _first_heard(found.period_events):
        told = orjson.loads(event.value)
        if event.sent_at < heard[told["account"], told["period"]]:
            yield f"{told['account']} was told of {told['period']} before its last statement"


def _first_heard(events: Sequence[Event]) -> Iterable[Event]:
    first: dict[str, Event] = {}
    for event in events:
        known = first.setdefault(event.event_id, event)
        if event.sent_at < known.sent_at:
            first[event.event_id] = event
    return first.values()

"""One message after the other: read, attribute, rate, and look whether another stands under its identity (L1, L2)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tests.auditor.amounts import is_toll_free, posted, refused_at_sight
from tests.auditor.owners import owner_of
from tests.auditor.reading import UnreadableError, invites_in, read_call, sip_verdict
from tests.auditor.words import (
    FOR_GOOD,
    Carrier,
    Input,
    Invite,
    Received,
    Report,
    Sealed,
    Verdict,
    in_force,
    month_edges,
)


def audit(carrier: Carrier, happenings: Iterable[Received | Sealed], as_of: datetime = FOR_GOOD) -> Report:
    """Judge every message.

    Args:
        carrier: whose, since when, for how much.
        happenings: messages in the order they are committed, and seals of months.
        as_of: how far the directory and every SIP partition have been read; what cannot be decided by then is held.
    """
    happenings = list(happenings)
    invites = [
        invite for each in happenings if isinstance(each, Received) for invite in invites_in(carrier, each)
    ]
    report = Report()
    sealed: set[str] = set()
    standing: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for each in happenings:
        if isinstance(each, Sealed):
            sealed.add(each.month)
        else:
            report.verdicts.append(_verdict(carrier, each, invites, standing, sealed, as_of))
    return report


def peak_channels(intervals: Iterable[tuple[datetime, datetime]], month: str) -> int:
    """The most calls at one instant of a month (C3), from the (answered_at, ended_at) of one owner's calls."""
    begins, ends = month_edges(month)
    clipped = [(max(a, begins), min(e, ends)) for a, e in intervals if a < e and a < ends and e > begins]
    return max((sum(1 for a, e in clipped if a <= start < e) for start, _ in clipped), default=0)


def numbers_held(carrier: Carrier, month: str, account: str, tenant: str | None) -> Counter[str]:
    """How many numbers an owner held at a month's last instant, by class (C3)."""
    last = month_edges(month)[1] - timedelta(microseconds=1)
    held = (each for each in carrier.numbers if in_force(each, last))
    return Counter(
        "number_toll_free" if is_toll_free(each.number) else "number_local"
        for each in held
        if (each.account, each.tenant) == (account, tenant)
    )


def _verdict(
    carrier: Carrier,
    message: Received,
    invites: Sequence[Invite],
    standing: dict[tuple[str, str], list[dict[str, Any]]],
    sealed: set[str],
    as_of: datetime,
) -> Verdict:
    source = next(each for each in carrier.inputs if each.topic == message.topic)
    if message.value is None:
        return Verdict("ignored", "tombstone")
    try:
        if source.kind == "sip":
            return sip_verdict(message)
        record = read_call(message.value)
    except UnreadableError:
        return Verdict("quarantined", "unreadable")
    refused = refused_at_sight(carrier, record, message)
    if refused is not None:
        return refused
    first = _standing(record, standing)
    if first is not None:
        same = _content(first) == _content(record)
        return Verdict("duplicate") if same else Verdict("quarantined", "conflicting_duplicate")
    standing[record["switch"], record["id"]].append(record)
    return _alone(carrier, source, record, message, invites, sealed, as_of)


def _alone(
    carrier: Carrier,
    source: Input,
    record: dict[str, Any],
    message: Received,
    invites: Sequence[Invite],
    sealed: set[str],
    as_of: datetime,
) -> Verdict:
    """What a record becomes if no other stands under its identity."""
    if record["started_at"] > as_of:
        return Verdict("held", "clock_ahead")
    owner = owner_of(carrier, source, record, message.received_at, invites, as_of)
    if isinstance(owner, Verdict):
        return owner
    return posted(carrier, source, record, message, owner, sealed)


def _standing(
    record: dict[str, Any], standing: dict[tuple[str, str], list[dict[str, Any]]]
) -> dict[str, Any] | None:
    """The record that stands under the same identity: same UTC date, or both near the midnight between (L1)."""
    at = record["started_at"]
    for other in standing[record["switch"], record["id"]]:
        if other["started_at"].date() == at.date() or _near_one_midnight(other["started_at"], at):
            return other
    return None


def _near_one_midnight(one: datetime, other: datetime) -> bool:
    margin = timedelta(minutes=5)

    def midnights(at: datetime) -> set[date]:
        days = {at.date(), at.date() + timedelta(days=1)}
        return {day for day in days if abs(datetime(day.year, day.month, day.day, tzinfo=UTC) - at) <= margin}

    return bool(midnights(one) & midnights(other))


def _content(record: dict[str, Any]) -> tuple[Any, ...]:
    """The fields that affect attribution, class, quantity or cost (L2)."""
    names = (
        "service",
        "direction",
        "call_id",
        "to_number",
        "source_ip",
        "x_tenant",
        "started_at",
        "answered_at",
    )
    return tuple(
        record.get(name)
        for name in (*names, "ended_at", "answered_seconds", "billed_seconds", "cost", "currency")
    )

"""Which SIP event speaks for a call record (A10).

A switch's record may lack the header or the source IP that the INVITE carried; the INVITE is then looked for among
the SIP events of the same Call-ID. What is chosen depends on the events alone, never on the order they come in.

`edge_addresses` are the addresses our own network sends from. Where several hops were captured, an event whose packet
came from one of them is our forwarded copy of the customer's INVITE, so it cannot say who the customer is. It is
dropped where the record names no source IP; what is left must have come from one address. A record that names its
source IP has said which packet is meant, whoever's address it is.

Which events came in time is told by Kafka's timestamps alone, so the answer is the same whenever it is asked. An event
speaks for records that Kafka received at most `context_age_max` after it: events older than that can be let go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from schemas.network import Address
from schemas.records import CallRecord, SipEvent

clock_tolerance: Final = timedelta(seconds=60)
context_age_max: Final = timedelta(days=35)


class ReceivedEvent(NamedTuple):
    """A SIP event and when and where Kafka received it; `received_at` alone decides whether it came in time."""

    received_at: datetime
    event: SipEvent
    position_id: int = 0
    offset: int = 0


def events_in_time(
    record: CallRecord,
    received_at: datetime,
    wait: timedelta,
    read_through: datetime,
    events: Iterable[ReceivedEvent],
    edge_addresses: Collection[Address],
) -> Sequence[ReceivedEvent] | None:
    """The events from which a record is decided: those received up to it if any counts, else up to the wait's end.

    Args:
        record: what waits.
        received_at: when Kafka received it.
        wait: how long an event may come after it.
        read_through: all events that Kafka received before are among `events`.
        events: of its Call-ID, or more.
        edge_addresses: see above.

    Returns:
        None where only reading further can tell.
    """
    young = [each for each in events if each.received_at >= received_at - context_age_max]
    by_then = [each for each in young if each.received_at <= received_at]
    if counting_events(record, [each.event for each in by_then], edge_addresses):
        return by_then
    if read_through > received_at + wait:
        return [each for each in young if each.received_at <= received_at + wait]
    return None


def counting_events(
    record: CallRecord, events: Iterable[SipEvent], edge_addresses: Collection[Address]
) -> Sequence[SipEvent]:
    """The SIP events that count for a record, the one that decides first.

    Same Call-ID, observed while the call may have begun, from the record's source IP where it has one, else not from
    our own edge. Highest CSeq first (authentication retries), then first observed.
    """
    earliest, latest = record.started_at - clock_tolerance, _latest_observed(record)
    counting = [
        event
        for event in events
        if event.call_id == record.call_id
        and earliest <= event.observed_at <= latest
        and _from_the_customer(event, record, edge_addresses)
    ]
    return sorted(counting, key=_precedence)


def sources(events: Iterable[SipEvent]) -> frozenset[Address]:
    """The addresses that the events' packets came from."""
    return frozenset(event.source_ip for event in events)


def _latest_observed(record: CallRecord) -> datetime:
    """The call's end. A record without one gets the tolerance after its start: an INVITE comes when a call begins."""
    return record.ended_at or record.started_at + clock_tolerance


def _from_the_customer(event: SipEvent, record: CallRecord, edge_addresses: Collection[Address]) -> bool:
    if record.source_ip is not None:
        return bool(event.source_ip == record.source_ip)
    return event.source_ip not in edge_addresses


def _precedence(event: SipEvent) -> tuple[int, datetime, bool, str, bool, str, str]:
    """A total order: of copies seen at the same instant, one that names a tenant first, then by text."""
    named = event.x_tenant or ""
    return (
        -event.cseq,
        event.observed_at,
        not named.strip(),
        named,
        event.x_tenant is None,
        str(event.source_ip),
        event.switch,
    )

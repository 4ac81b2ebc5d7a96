"""Which SIP event spoke for a posted call: looked up again by the rule that chose it (A10).

The ledger does not keep it. It depends on Kafka's timestamps alone, so it is found the same as long as the SIP events are
kept, and the input is read as it was then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import orjson
from sqlalchemy import Connection

from attribution import context_store
from attribution.context import ReceivedEvent, context_age_max, counting_events, events_in_time
from attribution.explain_store import AssetEntry
from pipeline import context_expiry_store
from pipeline.explained import SipEventUsed
from pipeline.prepare import InputSpec
from pipeline.settings import Settings
from pipeline.worker import input_spec
from rollup.explain_store import PostedRecord
from rollup.unattributed_store import SipReading
from schemas.decoded import Decoded
from schemas.formats.canonical import decode_call
from schemas.periods import utc_text
from schemas.records import CallRecord

_A_MOMENT: Final = timedelta(microseconds=1)


def context_could_tell(row: PostedRecord, assignment: AssetEntry | None) -> bool:
    """Whether the record was one that waits for SIP events: no source IP, or a shared one and no header (A10)."""
    if row.direction == "inbound" or row.call_id is None:
        return False
    if row.source_ip is None:
        return True
    return not (row.x_tenant or "").strip() and assignment is not None and assignment.tenant is None


def events_of(connection: Connection, settings: Settings, row: PostedRecord) -> list[ReceivedEvent]:
    """The SIP events that counted for a posted record, the deciding one first."""
    record = decode_call(_canonical(row))
    return counting(connection, spec_of(settings, row.topic), record, row.received_at)


def counting(
    connection: Connection, spec: InputSpec | None, record: Decoded | None, received_at: datetime
) -> list[ReceivedEvent]:
    """The SIP events that count for a call record, as far as they were received, the deciding one first."""
    if spec is None or not spec.rules.sip_context or not isinstance(record, CallRecord) or not record.call_id:
        return []
    end = received_at + spec.sip_wait
    found = context_store.sip_events_for(
        connection, [record.call_id], received_at - context_age_max, end
    ).get(record.call_id, ())
    edges = spec.rules.edge_addresses
    in_time = events_in_time(record, received_at, spec.sip_wait, end + _A_MOMENT, found, edges) or ()
    ordered = counting_events(record, [each.event for each in in_time], edges)
    return [next(each for each in in_time if each.event is event) for event in ordered]


def context_notes(
    connection: Connection,
    row: PostedRecord,
    assignment: AssetEntry | None,
    events: Sequence[ReceivedEvent],
) -> Iterable[str]:
    """What a person must know where no single SIP event spoke for a call that could have had one."""
    if not context_could_tell(row, assignment):
        return
    if row.reason == "ambiguous_context":
        sources = sorted({each.event.source_ip for each in events})
        yield f"the SIP events of {row.call_id} came from {', '.join(sources) or 'several source IPs'}"
    elif not events and not context_expiry_store.kept(connection, row.received_at):
        yield "the SIP events of that time have been let go, so what they said is not shown"
    elif not events:
        yield "no SIP event counted for this call: none was received in time, or its input does not use them"


def used(connection: Connection, event: ReceivedEvent, how_many: int) -> SipEventUsed:
    """A SIP event with its place in Kafka."""
    topic, partition = context_expiry_store.place(connection, event.position_id)
    return SipEventUsed(
        topic,
        partition,
        event.offset,
        event.received_at,
        event.event.observed_at,
        event.event.source_ip,
        event.event.x_tenant,
        event.event.cseq,
        how_many,
    )


def sip_reading(settings: Settings) -> SipReading:
    """How SIP events speak for the calls of each topic, for a summary of many."""
    calls = settings.inputs_of("calls")
    return SipReading(
        wait=timedelta(seconds=settings.sip_wait_seconds),
        topics_without=[each.topic for each in calls if not (each.sip_context and settings.inputs_of("sip"))],
        edges={each.topic: each.edge_addresses for each in calls},
    )


def spec_of(settings: Settings, topic: str, position_id: int = 0) -> InputSpec | None:
    """How messages of a topic are read; None where it is not in the settings any more."""
    found = next((each for each in settings.inputs if each.topic == topic), None)
    return None if found is None else input_spec(settings, found, position_id)


def _canonical(row: PostedRecord) -> bytes:
    """A ledger row as the call record that its SIP events are chosen for."""
    return orjson.dumps(
        {
            "id": row.record_id,
            "switch": row.switch,
            "service": row.service,
            "direction": row.direction,
            "started_at": utc_text(row.started_at),
            "ended_at": utc_text(row.ended_at) if row.ended_at else None,
            "call_id": row.call_id,
            "to_number": row.to_number,
            "source_ip": row.source_ip,
        }
    )

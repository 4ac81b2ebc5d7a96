"""Why does a record stand where it stands: everything that decided about it, put together for a person.

From the ledger, the held records, the quarantine, the directory's history and the SIP events (explain_context.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from attribution import explain_store as asset_store
from attribution.context import ReceivedEvent, clock_tolerance
from attribution.directory import Changes, Directory
from attribution.explain_store import AssetEntry
from attribution.rules_in_words import REASON_SAYS, RULE_SAYS
from pipeline.explain_context import context_could_tell, context_notes, counting, events_of, spec_of, used
from pipeline.explained import Amounts, Explained, Kept, Posting, Received, Said, Waits, Whose
from pipeline.prepare import Message, decode
from pipeline.settings import Settings
from rollup import explain_store, usage_in_words
from rollup.explain_store import KeptRecord, PostedRecord, TopicRead, WaitingRecord
from schemas.decoded import Undirected
from schemas.periods import Period, utc_text
from schemas.records import CallRecord

_REPEATED: Final = (
    "a copy with the same content changes nothing and is only counted (duplicate); others are listed here"
)


def explain(connection: Connection, settings: Settings, switch: str, record_id: str) -> tuple[Explained, ...]:
    """All that was received under a switch and id, on whatever date, in the order Kafka received it; empty if nothing."""
    posted = explain_store.posted(connection, switch, record_id)
    waiting = explain_store.waiting(connection, switch, record_id)
    found = [
        *(_posted(connection, settings, each) for each in posted),
        *(_held(connection, settings, each, (switch, record_id)) for each in waiting),
        *_quarantined(connection, settings, switch, record_id),
    ]
    return tuple(sorted(found, key=lambda each: (each.received.received_at, each.received.offset)))


def calls_read(connection: Connection, settings: Settings) -> tuple[TopicRead, ...]:
    """How far call records have been read: what is further on was not seen yet."""
    return explain_store.topics_read(connection, [topic.topic for topic in settings.inputs_of("calls")])


def _posted(connection: Connection, settings: Settings, row: PostedRecord) -> Explained:
    history = _asset_history(connection, row.direction, row.to_number, row.source_ip, row.started_at)
    assignment = next((each for each in history if each.assignment_id == row.assignment_id), None)
    events = events_of(connection, settings, row) if context_could_tell(row, assignment) else []
    deciding = events[0] if events and row.reason != "ambiguous_context" else None
    if row.source_ip is None and deciding is not None:
        source = deciding.event.source_ip
        history = _asset_history(connection, row.direction, None, source, row.started_at)
        assignment = next((each for each in history if each.assignment_id == row.assignment_id), None)
    return Explained(
        "posted",
        Received(*row[:4]),
        Said(
            row.switch,
            row.record_id,
            row.service,
            row.direction,
            row.started_at,
            row.from_number,
            row.to_number,
            row.source_ip,
            row.x_tenant,
            row.call_id,
        ),
        whose=_whose(connection, row, deciding),
        sip_event=used(connection, deciding, len(events)) if deciding else None,
        assignment=assignment,
        asset_history=history,
        usage=_amounts(row),
        posting=Posting(
            str(Period.of(row.period)),
            str(Period.of(row.started_at)),
            row.late,
            usage_in_words.period_says(row),
            row.period_state,
            row.statement_id,
        ),
        notes=(_REPEATED, *context_notes(connection, row, assignment, events)),
    )


def _whose(connection: Connection, row: PostedRecord, deciding: ReceivedEvent | None) -> Whose:
    own = (row.x_tenant or "").strip() or None
    by_event = (deciding.event.x_tenant or "").strip() or None if deciding else None
    header = None if row.direction == "inbound" else own or by_event
    return Whose(
        account=row.account,
        tenant=row.tenant,
        rule=row.rule,
        rule_says=_says(RULE_SAYS, row.rule),
        reason=row.reason,
        reason_says=_says(REASON_SAYS, row.reason) if row.reason else None,
        header=header,
        header_from=None if header is None else "record" if own else "sip_event",
        header_ignored=row.header_ignored,
        near_match=_near_match(connection, row, header) if row.reason == "unknown_tenant" else None,
    )


def _near_match(connection: Connection, row: PostedRecord, header: str | None) -> str | None:
    """The Account ID that an unknown name probably meant, by the rule that names one when a record is attributed."""
    if header is None or row.account_id is None:
        return None
    tenants = asset_store.tenants_of(connection, row.account_id)
    near = Directory.of(row.started_at, Changes(tenants=tenants)).near_match(
        row.account_id, header, row.started_at
    )
    return near.code if near else None


def _amounts(row: PostedRecord) -> Amounts:
    tariff = usage_in_words.tariff_of(row)
    return Amounts(
        row.usage_class,
        usage_in_words.class_says(row),
        row.answered_seconds,
        row.billed_seconds,
        usage_in_words.billed_says(row),
        row.cost,
        row.currency,
        usage_in_words.cost_says(row),
        row.tariff_id,
        row.tariff_prefix,
        f"{tariff.increment_first_seconds}/{tariff.increment_next_seconds}" if tariff else None,
        row.tariff_effective_at,
        row.tariff_made_at,
    )


def _held(
    connection: Connection, settings: Settings, row: WaitingRecord, identity: tuple[str, str]
) -> Explained:
    record = next((each for each in _records(settings, row) if (each.switch, each.id) == identity), None)
    events = counting(connection, spec_of(settings, row.topic, row.position_id), record, row.received_at)
    sip = [topic.topic for topic in settings.inputs_of("sip")] if row.reason == "sip_context" else []
    waits = Waits(
        row.reason,
        waits_for(row.reason, row.hold_until, record),
        row.hold_until,
        len(events),
        explain_store.topics_read(connection, sip),
    )
    history = (
        _asset_history(connection, record.direction, record.to_number, _address(record), record.started_at)
        if record
        else ()
    )
    return Explained(
        "held", Received(*row[:4]), _said(record), asset_history=history, waits=waits, notes=(_REPEATED,)
    )


def waits_for(reason: str, hold_until: datetime, record: CallRecord | None = None) -> str:
    """What a held record waits for, in words."""
    if reason == "clock_ahead":
        return f"its instant: its switch says the call starts at {utc_text(hold_until)}"
    call = ""
    if record is not None:
        latest = record.ended_at or record.started_at + clock_tolerance
        source = f" from {_address(record)}" if record.source_ip is not None else ""
        call = (
            f" of {record.call_id!r}{source}, seen from {utc_text(record.started_at - clock_tolerance)} "
            f"to {utc_text(latest)}"
        )
    return f"its SIP event{call}: for good once all SIP partitions have been read past {utc_text(hold_until)}"


def _quarantined(
    connection: Connection, settings: Settings, switch: str, record_id: str
) -> Iterable[Explained]:
    for row in explain_store.kept(connection, record_id):
        records = _records(settings, row)
        record = next((each for each in records if (each.switch, each.id) == (switch, record_id)), None)
        if record is None and (records or not _speaks_of(row.value, switch, record_id)):
            continue
        yield Explained("quarantined", _place(row), _said(record), quarantine=_kept(row))


def _place(row: KeptRecord) -> Received:
    return Received(row.topic, row.partition, row.offset, row.received_at)


def _kept(row: KeptRecord) -> Kept:
    again = f"tenant-billing quarantine replay --id {row.id}" if row.state == "open" else None
    return Kept(row.id, row.reason, row.detail, row.state, row.resolved_at, row.resolution, again)


def _speaks_of(value: bytes, switch: str, record_id: str) -> bool:
    """Whether bytes that are no record name its switch and id: as JSON fields, or anywhere where they are no JSON."""
    try:
        said = orjson.loads(value)
    except orjson.JSONDecodeError:
        return switch.encode() in value and record_id.encode() in value
    return isinstance(said, dict) and (said.get("switch"), said.get("id")) == (switch, record_id)


def _records(settings: Settings, row: WaitingRecord | KeptRecord) -> list[CallRecord]:
    """The call records that a message holds; none where it cannot be read, or its input is not in the settings any more."""
    spec = spec_of(settings, row.topic, row.position_id)
    if spec is None:
        return []
    decoded = [each for _, each in decode(spec, [Message(row.offset, row.received_at, None, row.value)])]
    records = [each.record if isinstance(each, Undirected) else each for each in decoded]
    return [each for each in records if isinstance(each, CallRecord)]


def _said(record: CallRecord | None) -> Said | None:
    if record is None:
        return None
    return Said(
        record.switch,
        record.id,
        record.service,
        record.direction,
        record.started_at,
        record.from_number,
        record.to_number,
        _address(record),
        record.x_tenant,
        record.call_id,
    )


def _address(record: CallRecord) -> str | None:
    return record.source_ip


def _asset_history(
    connection: Connection, direction: str, to_number: str | None, source_ip: str | None, at: datetime
) -> tuple[AssetEntry, ...]:
    if direction == "inbound":
        return asset_store.number_history(connection, to_number, at) if to_number else ()
    return asset_store.ip_history(connection, source_ip, at) if source_ip else ()


def _says(words: Mapping[Any, str], key: str) -> str:
    return words.get(key, key)  # a rule of another version says itself

"""The one releaser of held records (A10, DESIGN 8): decides each when Kafka's timestamps allow, exactly once.

A session lock elects one resolver; `for update skip locked` and the deletion of the held row guard each release.
A release posts through the same code as the stream and moves one count from held to its outcome, in one
transaction.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import structlog
from sqlalchemy import Connection, Engine

from attribution import context_store
from attribution.attribute import Held, attribute, attribute_in_context
from attribution.context import counting_events
from pipeline import metrics, position_store, resolver_store
from pipeline.election import while_elected
from pipeline.kafka_logs import KafkaLogs
from pipeline.posting import write
from pipeline.prepare import InputSpec, Item, Outcome, Snapshot, held_row, usage
from pipeline.resolver_store import WaitingRow
from pipeline.settings import InputTopic, Settings
from pipeline.snapshot import Snapshots
from pipeline.worker import input_spec
from rollup import months_store, posting_store
from rollup.posting_store import Count
from schemas.formats.canonical import decode_call
from schemas.locks import Lock
from schemas.records import CallRecord, SipEvent

_log = structlog.get_logger(__name__)
RESOLVER_SHARD: Final = 0
_release_records_max: Final = 1000
_end_margin: Final = timedelta(
    seconds=5
)  # A10: a partition read to its end counts as read up to 5 s before that poll


class Release(NamedTuple):
    """A held record and what it comes to now."""

    row: WaitingRow
    item: Item


class Progress(NamedTuple):
    """What a pass over held records did: how many it released, and how many it looked at for the first time in vain."""

    released: int
    examined: int


def run_resolver(settings: Settings, engine: Engine, stop: threading.Event) -> None:
    """Release held records until `stop`; one process of an installation does it at a time."""
    logs = KafkaLogs(settings.kafka_bootstrap_servers)
    snapshots: list[Snapshots] = []

    def once() -> bool:
        if not snapshots:
            snapshots.append(Snapshots(engine))
        resolve_once(settings, engine, snapshots[0], logs)
        return False

    while_elected(engine, Lock.RESOLVER, stop, settings.resolver_interval_seconds, once)


def resolve_once(settings: Settings, engine: Engine, snapshots: Snapshots, logs: KafkaLogs) -> int:
    """Release all that can be decided now; returns how many records were released."""
    sip_topics = [topic.topic for topic in settings.inputs_of("sip")]
    through = sip_read_through(engine, logs, sip_topics)
    released = 0
    while True:
        with engine.connect() as connection:
            waiting = resolver_store.anything_due(connection, through, months_store.database_now(connection))
        if not waiting:
            break
        snapshot = snapshots.refresh()
        with engine.begin() as connection:
            batch = resolver_store.due(connection, through, snapshot.as_of, _release_records_max)
            progress = _release(connection, settings, snapshot, batch, through)
        released += progress.released
        if len(batch) < _release_records_max or not any(progress):
            break
    with engine.connect() as connection:
        metrics.HELD.set(resolver_store.held_count(connection))
    metrics.RELEASED.inc(released)
    if released:
        _log.info("released", records=released)
    return released


def sip_read_through(engine: Engine, logs: KafkaLogs, topics: Sequence[str]) -> datetime | None:
    """The instant before which every SIP partition has been read; None while one has not been read at all."""
    if not topics:
        return None
    with engine.connect() as connection:
        asked_at = months_store.database_now(connection)
    ends = logs.ends(topics)
    with engine.begin() as connection:
        position_store.read_to_end(connection, ends, asked_at - _end_margin)
        states = {
            (state.topic, state.partition): state.read_through_at
            for state in position_store.partition_states(connection, topics)
        }
    reached = [states.get(partition) for partition in ends]
    if not reached or any(instant is None for instant in reached):
        return None
    return min(instant for instant in reached if instant is not None)


def _release(
    connection: Connection,
    settings: Settings,
    snapshot: Snapshot,
    waiting: Sequence[WaitingRow],
    through: datetime | None,
) -> Progress:
    call_ids = sorted({row.call_id for row in waiting if row.call_id and row.reason == "sip_context"})
    events = context_store.sip_events_for(connection, call_ids, through) if through and call_ids else {}
    inputs = {topic.topic: topic for topic in settings.inputs}
    releases: list[Release] = []
    examined = 0
    for row in waiting:
        outcome = _decided(settings, inputs, snapshot, row, events.get(row.call_id or "", ()), through)
        if outcome is None:
            examined += resolver_store.mark_examined(connection, row)
        else:
            releases.append(Release(row, Item(row.message, outcome)))
    _post(connection, releases)
    return Progress(len(releases), examined)


def _decided(
    settings: Settings,
    inputs: Mapping[str, InputTopic],
    snapshot: Snapshot,
    row: WaitingRow,
    events: Iterable[tuple[datetime, SipEvent]],
    through: datetime | None,
) -> Outcome | None:
    """What a held record comes to; None where only waiting longer can tell."""
    topic = inputs.get(row.topic)
    record = decode_call(row.message.value)
    if topic is None or not isinstance(record, CallRecord):
        _log.error("held_record_without_input", topic=row.topic, offset=row.message.offset)
        return None
    spec = input_spec(settings, topic, row.position_id)
    if row.reason == "clock_ahead":
        attribution = attribute(record, snapshot.directory, spec.rules)
        if isinstance(attribution, Held):
            return held_row(spec, row.message, record, attribution)
        return usage(spec, row.message, record, attribution, snapshot)
    in_time = _events_in_time(spec, record, row, list(events), through)
    if in_time is None:
        return None
    attribution = attribute_in_context(record, snapshot.directory, spec.rules, in_time)
    if isinstance(attribution, Held):
        return held_row(spec, row.message, record, attribution)
    return usage(spec, row.message, record, attribution, snapshot)


def _events_in_time(
    spec: InputSpec,
    record: CallRecord,
    row: WaitingRow,
    events: Sequence[tuple[datetime, SipEvent]],
    through: datetime | None,
) -> Sequence[SipEvent] | None:
    """The SIP events that decide (A10): those received up to the record if any counts, else up to the wait's end."""
    assert through is not None
    received_at = row.message.received_at
    by_then = [event for at, event in events if at <= received_at]
    if counting_events(record, by_then, spec.rules.edge_addresses):
        return by_then
    if through > received_at + spec.sip_wait:
        return [event for at, event in events if at <= received_at + spec.sip_wait]
    return None


def _post(connection: Connection, releases: Sequence[Release]) -> None:
    """Write released records, and move their counts from held to what they came to."""
    resolver_store.delete_held(connection, [release.row for release in releases])
    by_position: dict[int, list[Release]] = defaultdict(list)
    for release in releases:
        by_position[release.row.position_id].append(release)
    for position_id, group in sorted(by_position.items()):
        written = write(connection, RESOLVER_SHARD, [release.item for release in group])
        moved = Counter({("held", reason): -n for reason, n in Counter(r.row.reason for r in group).items()})
        for outcome, records in written.counts.items():
            moved[outcome] += records
        counts = [Count(outcome, reason, records) for (outcome, reason), records in moved.items()]
        posting_store.count(connection, position_id, "resolver", counts)

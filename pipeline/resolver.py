"""The one releaser of held records (A10, DESIGN 8): decides each when Kafka's timestamps allow, exactly once.

A session lock elects one resolver; `for update skip locked` and the deletion of the held row guard each release.
A release posts through the same code as the stream and moves one count from held to its outcome, in one
transaction.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import structlog
from sqlalchemy import Connection, Engine

from attribution import context_store
from attribution.attribute import Held, attribute_in_context
from attribution.context import ReceivedEvent, context_age_max, events_in_time
from attribution.direction import direct
from pipeline import metrics, position_store, resolver_store
from pipeline.batch_rows import Part
from pipeline.context_expiry import expire_contexts
from pipeline.election import while_elected
from pipeline.kafka_logs import KafkaLogs
from pipeline.prepare import InputSpec, Item, Outcome, Snapshot, decode_one, held_row, prepare, usage
from pipeline.read_through import read_through
from pipeline.resolver_store import WaitingRow
from pipeline.settings import InputTopic, Settings
from pipeline.snapshot import Snapshots
from pipeline.worker import input_spec
from pipeline.writing import write
from rollup import months_store, posting_store
from rollup.posting_store import Counted
from schemas.decoded import Decoded, Undirected
from schemas.locks import Lock
from schemas.records import CallRecord

_log = structlog.get_logger(__name__)
RESOLVER_SHARD: Final = 0
_release_records_max: Final = 1000
_expiry_interval_seconds: Final = 3600.0


class Release(NamedTuple):
    """A held record and what it comes to now."""

    row: WaitingRow
    item: Item


class Progress(NamedTuple):
    """What a pass over held records did: how many it released, and how many it looked at for the first time in vain."""

    released: int
    examined: int


def run_resolver(settings: Settings, engine: Engine, stop: threading.Event) -> None:
    """Release held records, and let old SIP contexts go, until `stop`; one process of an installation does it at a time."""
    logs = KafkaLogs(settings.kafka_bootstrap_servers, settings.kafka_security)
    snapshots: list[Snapshots] = []
    rounds = itertools.count()
    rounds_between_expiries = max(1, round(_expiry_interval_seconds / settings.resolver_interval_seconds))

    def once() -> bool:
        if not snapshots:
            snapshots.append(Snapshots(engine))
        resolve_once(settings, engine, snapshots[0], logs)
        if next(rounds) % rounds_between_expiries == 0:
            expire_contexts(settings, engine, logs)
        return False

    while_elected(engine, Lock.RESOLVER, stop, settings.resolver_interval_seconds, once)


def resolve_once(settings: Settings, engine: Engine, snapshots: Snapshots, logs: KafkaLogs) -> int:
    """Release all that can be decided now; returns how many records were released."""
    sip_topics = [topic.topic for topic in settings.inputs_of("sip")]
    through = read_through(engine, logs, sip_topics)
    released = 0
    while True:
        with engine.connect() as connection:
            waiting = resolver_store.anything_due(connection, through, months_store.database_now(connection))
        if not waiting:
            break
        snapshot = snapshots.refresh()
        with engine.begin() as connection:
            position_store.begin_posting(connection)
            batch = resolver_store.due(connection, through, snapshot.as_of, _release_records_max)
            progress = _release(connection, settings, snapshot, batch, through)
        released += progress.released
        if len(batch) < _release_records_max or not any(progress):
            break
    metrics.RELEASED.inc(released)
    if released:
        _log.info("released", records=released)
    return released


def _release(
    connection: Connection,
    settings: Settings,
    snapshot: Snapshot,
    waiting: Sequence[WaitingRow],
    through: datetime | None,
) -> Progress:
    call_ids = sorted({row.call_id for row in waiting if row.call_id and row.reason == "sip_context"})
    events: Mapping[str, Sequence[ReceivedEvent]] = {}
    if through and call_ids:
        earliest = min(row.message.received_at for row in waiting) - context_age_max
        events = context_store.sip_events_for(connection, call_ids, earliest, through)
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
    events: Sequence[ReceivedEvent],
    through: datetime | None,
) -> Outcome | None:
    """What a held record comes to; None where only waiting longer can tell."""
    topic = inputs.get(row.topic)
    if topic is None:
        _log.error("held_record_without_input", topic=row.topic, offset=row.message.offset)
        return None
    spec = input_spec(settings, topic, row.position_id)
    message, decoded = decode_one(spec, row.message)
    record = _record(spec, decoded, snapshot)
    if row.reason == "clock_ahead" or record is None:
        return prepare(spec, [(message, decoded)], snapshot)[0].outcome
    assert through is not None
    in_time = events_in_time(
        record, row.message.received_at, spec.sip_wait, through, events, spec.rules.edge_addresses
    )
    if in_time is None:
        return None
    attribution = attribute_in_context(
        record, snapshot.directory, spec.rules, [each.event for each in in_time]
    )
    if isinstance(attribution, Held):
        return held_row(spec, row.message, record, attribution)
    return usage(spec, row.message, record, attribution, snapshot)


def _record(spec: InputSpec, decoded: Decoded, snapshot: Snapshot) -> CallRecord | None:
    """The held call record; None where its input reads it in another way now, or its instant has not come."""
    if isinstance(decoded, Undirected):
        directed = direct(decoded, snapshot.directory, spec.rules.home_country)
        return directed if isinstance(directed, CallRecord) else None
    return decoded if isinstance(decoded, CallRecord) else None


def _post(connection: Connection, releases: Sequence[Release]) -> None:
    """Write released records, and move their counts from held to what they came to."""
    resolver_store.delete_held(connection, [release.row for release in releases])
    by_position: dict[int, list[Item]] = defaultdict(list)
    for release in releases:
        by_position[release.row.position_id].append(release.item)
    written = write(
        connection, list(itertools.starmap(Part, sorted(by_position.items()))), shard=RESOLVER_SHARD
    )
    moved = written.counts
    moved.subtract(Counted(each.row.position_id, "held", each.row.reason) for each in releases)
    posting_store.count(connection, "resolver", moved)

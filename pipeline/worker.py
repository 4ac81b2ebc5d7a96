"""The worker: Faust agents that read batches, prepare them, and write each whole, in one transaction with others.

While one transaction is in the database (in a thread), the next is decoded and attributed. Whatever goes wrong inside an
agent is caught there: it backs off, reads its place from Postgres again, and goes on.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import faust
import structlog
from faust.types import TP
from sqlalchemy import Engine

from attribution.attribute import InputRules
from pipeline import metrics
from pipeline.kafka_security import faust_credentials
from pipeline.lanes import Lanes, Transaction, Waiting, transactions_at_once_max
from pipeline.logs import told
from pipeline.ordinary import Messages, prepare_batch, read
from pipeline.place_watch import watch_places
from pipeline.positions import Positions
from pipeline.posting import BatchPoster, LostPlaceError, PreparedBatch, is_away, joined
from pipeline.prepare import InputSpec
from pipeline.readability import Readability, TooManyUnreadableError
from pipeline.settings import InputTopic, Settings
from pipeline.snapshot import Snapshots
from pipeline.topic_ids import KafkaTopicIds
from pipeline.transport import BatchApp, RecordBatch, RefusedPlaceError
from pipeline.watching import WorkerView
from rollup.posting_store import Counted, by_outcome

_log = structlog.get_logger(__name__)
_back_off_seconds: Final = (0.1, 0.5, 2.0, 5.0, 10.0)
_buffered_batches_max: Final = 4
piece_records: Final = 1000
_look_seconds: Final = 0.02
_switch_seconds: Final = 0.001
collect_after_objects: Final = 200_000


def build_app(settings: Settings, engine: Engine, view: WorkerView) -> BatchApp:
    """The Faust app with one agent per input topic; nothing is connected yet."""
    app = BatchApp(
        settings.consumer_group,
        broker=f"kafka://{settings.kafka_bootstrap_servers.replace(',', ';')}",
        broker_credentials=faust_credentials(settings.kafka_security),
        broker_max_poll_records=settings.batch_records_max,
        broker_session_timeout=settings.session_timeout_seconds,
        broker_heartbeat_interval=settings.session_timeout_seconds / 3,
        broker_commit_interval=2.0,
        consumer_metadata_max_age_ms=10_000,  # a group formed while a broker starts may have nothing to share out
        consumer_max_fetch_size=settings.fetch_bytes_max,
        stream_buffer_maxsize=_buffered_batches_max,
        stream_wait_empty=True,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        web_bind="127.0.0.1",
        store="memory://",
        logging_config=None,
    )
    # The embedded broker, which is the only one without LogAppendTime, tells no ids either.
    topic_ids = KafkaTopicIds(settings.kafka_bootstrap_servers, settings.kafka_security)
    app.position_source = Positions(engine, topic_ids if settings.require_log_append_time else None)
    watch_places(app, engine, settings, topic_ids)
    snapshots = Snapshots(engine)
    poster = BatchPoster(engine)
    for topic in settings.inputs:
        ingest = Ingest(app, settings, topic, snapshots, poster)
        app.agent(app.batch_topic(topic.topic), name=f"ingest-{topic.topic}")(ingest.run)
    view.app, view.snapshots = app, snapshots
    return app


def run_worker(settings: Settings, engine: Engine, view: WorkerView) -> None:
    """Run the agents until SIGTERM or SIGINT; the process ends with Faust's exit status."""
    app = build_app(settings, engine, view)
    # Records are made and dropped by the thousand and hold no cycles: looking for some after every 700 costs a fifth.
    gc.collect()
    gc.freeze()
    gc.set_threshold(collect_after_objects)
    # Kafka's reader is a thread of its own: it must not wait 5 ms for each turn while a batch is prepared.
    sys.setswitchinterval(_switch_seconds)
    worker = faust.Worker(
        app, loglevel=settings.log_level.upper(), redirect_stdouts=False, override_logging=False, quiet=True
    )
    worker.spinner = None  # it writes terminal codes among the log lines
    sys.exit(worker.execute_from_commandline())


def input_spec(settings: Settings, topic: InputTopic, position_id: int) -> InputSpec:
    """How the messages of one partition of an input topic are read."""
    rules = InputRules(
        sip_context=topic.sip_context and bool(settings.inputs_of("sip")),
        home_country=topic.home_country,
        edge_addresses=topic.edge_addresses,
    )
    return InputSpec(
        position_id, topic.kind, topic.format, rules, timedelta(seconds=settings.sip_wait_seconds)
    )


class Ingest:
    """One agent's work: from the batches of one topic to committed rows.

    While transactions are in the database, the next batches are prepared and join their partitions' lanes (pipeline/lanes.py).
    """

    def __init__(
        self, app: BatchApp, settings: Settings, topic: InputTopic, snapshots: Snapshots, poster: BatchPoster
    ) -> None:
        self._app = app
        self._settings = settings
        self._topic = topic
        self._snapshots = snapshots
        self._poster = poster
        self._database = ThreadPoolExecutor(
            max_workers=transactions_at_once_max, thread_name_prefix=f"post-{topic.topic}"
        )
        self._lanes = Lanes(settings.batch_records_max)
        self._starter: asyncio.Task[None] | None = None
        self._writers: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._room = asyncio.Event()
        self._failures = 0
        self._readable = Readability()

    async def run(self, stream: AsyncIterator[Any]) -> None:
        """Consume batches for ever: prepare one while those before are being written."""
        clock = asyncio.get_running_loop()
        async for batch in stream:
            pieces = await self._prepare(batch)
            if not pieces:
                continue
            # without its records, of which all that is still needed was taken over
            told = batch._replace(records=())
            self._lanes.add(batch.tp, [Waiting(told, piece) for piece in pieces], clock.time())
            self._moved.set()
            if self._starter is None or self._starter.done():
                self._starter = asyncio.create_task(self._start_writers())
            while self._lanes.are_full:
                self._room.clear()
                await self._room.wait()

    async def _start_writers(self) -> None:
        """Start each transaction when it is due, until nothing waits."""
        clock = asyncio.get_running_loop()
        while not self._lanes.are_empty:
            self._moved.clear()
            for transaction in self._lanes.due(clock.time()):
                writer = asyncio.create_task(self._write(transaction))
                self._writers.add(writer)
                writer.add_done_callback(self._writers.discard)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), _look_seconds)

    async def _write(self, transaction: Transaction) -> None:
        """Write a transaction; where several partitions' cannot be written together, each is written alone."""
        failed = await self._post(transaction)
        self._lanes.written(transaction, asyncio.get_running_loop().time())
        self._moved.set()
        alone = transaction.alone()
        if failed is None or len(alone) == 1 or is_away(failed):
            await asyncio.gather(*[self._go_on(each, failed) for each in alone])
        else:
            _log.info("written_apart", topic=self._topic.topic, error=told(failed))
            await asyncio.gather(*[self._write_alone(each) for each in alone])

    async def _write_alone(self, part: Transaction) -> None:
        await self._go_on(part, await self._post(part))

    async def _go_on(self, part: Transaction, failed: Exception | None) -> None:
        """A partition's pieces were written, or not; its lane goes on."""
        if failed is not None:
            await self._recover(part.first, failed)
        self._lanes.release(part)
        self._room.set()
        self._moved.set()

    @property
    def _consumer(self) -> Any:
        return self._app.batch_consumer

    async def _prepare(self, batch: RecordBatch) -> list[PreparedBatch]:
        """The pieces of a batch; none where its place is to be found again."""
        if not self._consumer.is_current(batch):
            return []
        try:
            position_id = self._app.position_source.id_of(batch.tp)
            spec = input_spec(self._settings, self._topic, position_id)
            return await self._prepare_in_pieces(spec, batch)
        except TooManyUnreadableError as refused:
            _log.error(
                "too_many_unreadable", **_place(batch.tp), offset=batch.first_offset, error=told(refused)
            )
            await self._app.crash(refused)
        except Exception as error:  # noqa: BLE001 (the partition must go on by itself, whatever this was)
            await self._recover(batch, error)
        return []

    async def _prepare_in_pieces(self, spec: InputSpec, batch: RecordBatch) -> list[PreparedBatch]:
        """Read and attribute so few records at a time that a processor's cache holds all that is made on the way."""
        pieces: list[PreparedBatch] = []
        steps = metrics.Steps(batch.tp.topic)
        first_offset = batch.first_offset
        for first in range(0, max(len(batch.records), 1), piece_records):
            end = first + piece_records
            with steps.timed("decode"):
                told = read(spec, Messages.of(batch.records[first:end]))
            if self._settings.unreadable_share_max is not None:
                self._readable.look(told.records, told.unreadable, self._settings.unreadable_share_max)
            latest = told.latest_start
            snapshot = self._snapshots.current
            if latest is not None and latest > snapshot.as_of:
                snapshot = await asyncio.to_thread(self._snapshots.refresh)
            with steps.timed("attribute"):
                ordinary, items = prepare_batch(spec, told, snapshot)
            next_offset = batch.records[end].offset if end < len(batch.records) else batch.next_offset
            pieces.append(PreparedBatch(spec.position_id, first_offset, next_offset, items, ordinary))
            first_offset = next_offset
        steps.tell()
        return pieces

    async def _post(self, transaction: Transaction) -> Exception | None:
        """Write what of a transaction is current; returns what went wrong, whatever it was: the partitions must go on."""
        loop = asyncio.get_running_loop()
        current = {}
        for tp, pieces in transaction.pieces.items():
            prepared = [each.prepared for each in pieces if self._consumer.is_current(each.batch)]
            if prepared:
                current[tp] = joined(prepared)
        if not current:
            return None
        started, steps = loop.time(), metrics.Steps(self._topic.topic)
        try:
            with steps.timed("post"):
                counts = await loop.run_in_executor(self._database, self._poster.post, *current.values())
            steps.tell()
            self._failures = 0
            for tp, batch in current.items():
                self._consumer.mark_durable(tp, batch.next_offset)
            self._tell(current, counts, loop.time() - started)
        except Exception as error:  # noqa: BLE001 (see above)
            return error
        return None

    async def _recover(self, batch: RecordBatch, error: Exception) -> None:
        """Back off, then read the partition's place from Postgres again; a lost place needs no waiting."""
        if not isinstance(error, LostPlaceError):
            pause = _back_off_seconds[min(self._failures, len(_back_off_seconds) - 1)]
            self._failures += 1
            _log.error(
                "batch_failed",
                **_place(batch.tp),
                offset=batch.first_offset,
                retry_seconds=pause,
                error=told(error),
            )
            metrics.BATCH_FAILURES.labels(topic=batch.tp.topic).inc()
            await asyncio.sleep(pause)
        else:
            _log.warning("place_lost", **_place(batch.tp), offset=batch.first_offset)
            metrics.PLACES_LOST.labels(topic=batch.tp.topic).inc()
        while self._consumer.is_current(batch) and not self._app.should_stop:
            try:
                await self._consumer.find_place([batch.tp])
            except RefusedPlaceError as refused:
                _log.error("position_refused", error=told(refused))
                await self._app.crash(refused)
                return
            except Exception as again:  # noqa: BLE001 (the database may be away for long: keep trying)
                _log.error("place_not_found", **_place(batch.tp), error=told(again))
                await asyncio.sleep(_back_off_seconds[-2])
            else:
                return

    def _tell(
        self, written: Mapping[TP, PreparedBatch], counts: Mapping[Counted, int], seconds: float
    ) -> None:
        topic = self._topic.topic
        for (outcome, reason), records in by_outcome(counts).items():
            metrics.RECORDS.labels(topic=topic, outcome=outcome, reason=reason).inc(records)
        metrics.BATCH_RECORDS.labels(topic=topic).observe(sum(each.records for each in written.values()))
        for tp, prepared in written.items():
            _log.info(
                "batch",
                **_place(tp),
                first=prepared.first_offset,
                next=prepared.next_offset,
                records=prepared.records,
                seconds=round(seconds, 4),
                outcomes={
                    f"{outcome}/{reason}" if reason else outcome: records
                    for (position_id, outcome, reason), records in counts.items()
                    if position_id == prepared.position_id
                },
            )


def _place(tp: TP) -> dict[str, Any]:
    return {"topic": tp.topic, "partition": tp.partition}

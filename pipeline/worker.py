"""The worker: Faust agents that read batches, prepare them, and post each in one transaction.

While one batch is in the database (in a thread), the next is decoded and attributed. Whatever goes wrong inside an
agent is caught there: it backs off, reads its place from Postgres again, and goes on.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Final

import faust
import structlog
from faust.types import TP
from sqlalchemy import Engine

from attribution.attribute import InputRules
from pipeline import metrics
from pipeline.positions import PositionBeyondLogError, Positions
from pipeline.posting import BatchPoster, LostPlaceError, PreparedBatch
from pipeline.prepare import InputSpec, Message, decode, kafka_instant, latest_start, prepare
from pipeline.settings import InputTopic, Settings
from pipeline.snapshot import Snapshots
from pipeline.transport import BatchApp, RecordBatch

_log = structlog.get_logger(__name__)
_back_off_seconds: Final = (0.1, 0.5, 2.0, 5.0, 10.0)
_buffered_batches_max: Final = 8


def build_app(settings: Settings, engine: Engine) -> BatchApp:
    """The Faust app with one agent per input topic; nothing is connected yet."""
    app = BatchApp(
        settings.consumer_group,
        broker=f"kafka://{settings.kafka_bootstrap_servers.replace(',', ';')}",
        broker_max_poll_records=settings.batch_records_max,
        broker_session_timeout=settings.session_timeout_seconds,
        broker_heartbeat_interval=settings.session_timeout_seconds / 3,
        broker_commit_interval=2.0,
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
    app.position_source = Positions(engine)
    snapshots = Snapshots(engine)
    poster = BatchPoster(engine)
    for topic in settings.inputs:
        ingest = Ingest(app, settings, topic, snapshots, poster)
        app.agent(app.batch_topic(topic.topic), name=f"ingest-{topic.topic}")(ingest.run)
    return app


def run_worker(settings: Settings, engine: Engine) -> None:
    """Run the agents until SIGTERM or SIGINT; the process ends with Faust's exit status."""
    app = build_app(settings, engine)
    worker = faust.Worker(
        app, loglevel=settings.log_level.upper(), redirect_stdouts=False, override_logging=False
    )
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
    """One agent's work: from the batches of one topic to committed rows."""

    def __init__(
        self, app: BatchApp, settings: Settings, topic: InputTopic, snapshots: Snapshots, poster: BatchPoster
    ) -> None:
        self._app = app
        self._settings = settings
        self._topic = topic
        self._snapshots = snapshots
        self._poster = poster
        self._database = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"post-{topic.topic}")
        self._failures = 0

    async def run(self, stream: AsyncIterator[Any]) -> None:
        """Consume batches for ever: decode one while the one before is being written."""
        writing: asyncio.Task[None] | None = None
        async for batch in stream:
            prepared = await self._prepare(batch)
            if writing is not None:
                await writing
            if prepared is not None and self._consumer.is_current(batch):
                writing = asyncio.create_task(self._post(batch, prepared))

    @property
    def _consumer(self) -> Any:
        return self._app.batch_consumer

    async def _prepare(self, batch: RecordBatch) -> PreparedBatch | None:
        if not self._consumer.is_current(batch):
            return None
        try:
            position_id = self._app.position_source.id_of(batch.tp)
            spec = input_spec(self._settings, self._topic, position_id)
            decoded = decode(spec, map(_message, batch.records))
            latest = latest_start(decoded)
            snapshot = self._snapshots.current
            if latest is not None and latest > snapshot.as_of:
                snapshot = await asyncio.to_thread(self._snapshots.refresh)
            items = prepare(spec, decoded, snapshot)
        except Exception as error:  # noqa: BLE001 (the partition must go on by itself, whatever this was)
            await self._recover(batch, error)
            return None
        return PreparedBatch(position_id, batch.first_offset, batch.next_offset, items)

    async def _post(self, batch: RecordBatch, prepared: PreparedBatch) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            counts = await loop.run_in_executor(self._database, self._poster.post, prepared)
        except Exception as error:  # noqa: BLE001 (the partition must go on by itself, whatever this was)
            await self._recover(batch, error)
            return
        self._failures = 0
        self._consumer.mark_durable(batch.tp, batch.next_offset)
        self._tell(batch, counts, loop.time() - started)

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
                exc_info=error,
            )
            metrics.BATCH_FAILURES.labels(topic=batch.tp.topic).inc()
            await asyncio.sleep(pause)
        else:
            _log.warning("place_lost", **_place(batch.tp), offset=batch.first_offset)
        while self._consumer.is_current(batch) and not self._app.should_stop:
            try:
                await self._consumer.find_place([batch.tp])
            except PositionBeyondLogError as refused:
                await self._app.crash(refused)
                return
            except Exception as again:  # noqa: BLE001 (the database may be away for long: keep trying)
                _log.error("place_not_found", **_place(batch.tp), error=str(again))
                await asyncio.sleep(_back_off_seconds[-2])
            else:
                return

    def _tell(self, batch: RecordBatch, counts: Counter[tuple[str, str]], seconds: float) -> None:
        for (outcome, reason), records in counts.items():
            metrics.RECORDS.labels(topic=batch.tp.topic, outcome=outcome, reason=reason).inc(records)
        metrics.POSTING_SECONDS.labels(topic=batch.tp.topic).observe(seconds)
        _log.info(
            "batch",
            **_place(batch.tp),
            first=batch.first_offset,
            next=batch.next_offset,
            records=len(batch.records),
            seconds=round(seconds, 4),
            outcomes={
                f"{outcome}/{reason}" if reason else outcome: n for (outcome, reason), n in counts.items()
            },
        )


def _message(record: Any) -> Message:
    return Message(record.offset, kafka_instant(record.timestamp), record.key, record.value)


def _place(tp: TP) -> dict[str, Any]:
    return {"topic": tp.topic, "partition": tp.partition}

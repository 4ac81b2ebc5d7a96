"""How batches reach a Faust agent: one event per partition and poll, from the place that Postgres says.

Stock Faust makes an event per record (about 230 µs each) and acknowledges what an agent lost. Here agents stay
agents, but an event carries a `RecordBatch`; Kafka's committed offsets are advisory, written after the database has
committed. A partition's place comes from `PositionSource` at every assignment, and after every loss of place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, cast

import aiokafka
import faust
import structlog
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from faust.events import Event
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from pipeline.logs import told
from pipeline.ordinary import Record

# aiokafka would copy each record it has read into an object of eleven fields; what it has read carries all that is wanted.
PartitionRecords._consumer_record = lambda _, __, record: record  # noqa: SLF001

_log = structlog.get_logger(__name__)
_poll_seconds: Final = 1.0
_fetch_wait_ms: Final = 100
_fetch_bytes_min: Final = 1 << 20  # few large batches cost half of what many small ones do


class RecordBatch(NamedTuple):
    """Consecutive records of one partition; none, where a stretch of offsets holds none.

    `first_offset` is where the partition's position stood before (it may lie below the first record, over offsets
    that hold no record); `next_offset` is where it stands after. `epoch` tells batches read before a loss of place.
    """

    tp: TP
    first_offset: int
    next_offset: int
    records: Sequence[Record]
    epoch: int
    behind: int = 0


class LogRange(NamedTuple):
    """The offsets a partition's log holds: from `start` up to but not including `end`."""

    start: int
    end: int


class RefusedPlaceError(RuntimeError):
    """A partition must not be read from where it stands; the message says why, and what resolves it."""


class PositionSource(Protocol):
    """Where partitions are to be read from."""

    def id_of(self, tp: TP) -> int:
        """The id of a partition's position; of one that has been assigned."""

    def positions(self, ranges: Mapping[TP, LogRange]) -> Mapping[TP, int]:
        """The next offset of each partition, checked against what its log holds; may take database time.

        Raises:
            RefusedPlaceError: a position is not of this log.
        """


@dataclass(slots=True)
class _Place:
    """Where one partition is being read; `expected` is the next offset that an agent must be given, `found` the first.

    `jump`: where a read went on instead, seen once and read again. The second time it is believed: the offsets between
    hold no record (transaction markers, compaction). The first time it may be our own doing: a read that a rebalance
    dropped, the tail of a read from before a seek.
    """

    expected: int
    epoch: int
    found: int
    jump: int | None = None


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """aiokafka's consumer with what Faust has no setting for: aborted transactions are never read."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        self._assignor = RoundRobinPartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_min_bytes=_fetch_bytes_min,
            fetch_max_wait_ms=_fetch_wait_ms,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            check_crcs=conf.broker_check_crcs,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            isolation_level="read_committed",
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            **driver.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
        )


class BatchConsumer(driver.Consumer):
    """A consumer whose events are batches and whose places come from the app's `PositionSource`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._places: dict[TP, _Place] = {}
        self._durable: dict[TP, int] = {}
        self._epochs = 0
        self._looked_at = 0.0

    def mark_durable(self, tp: TP, next_offset: int) -> None:
        """The database has committed everything below `next_offset`: Kafka may be told."""
        self._durable[tp] = max(next_offset, self._durable.get(tp, -1))

    def is_current(self, batch: RecordBatch) -> bool:
        """Whether a batch was read since its partition last lost its place."""
        place = self._places.get(batch.tp)
        return place is not None and place.epoch == batch.epoch

    async def find_place(self, tps: Iterable[TP]) -> Mapping[TP, int]:
        """Read these partitions' places anew and go there; batches read before are stale from now on."""
        assigned = [tp for tp in map(ensure_TP, tps) if tp in self.assignment()]
        if not assigned:
            return {}
        starts, ends = await self.earliest_offsets(*assigned), await self.highwaters(*assigned)
        ranges = {
            ensure_TP(tp): LogRange(start, ends[tp]) for tp, start in starts.items() if start is not None
        }
        app = cast("BatchApp", self.app)
        positions = await asyncio.to_thread(app.position_source.positions, ranges)
        self._epochs += 1
        for tp, offset in positions.items():
            self._places[tp] = _Place(offset, self._epochs, offset)
            await self._seek(tp, offset)
            self._read_offset[tp] = offset
        app.placed = frozenset(self._places)
        return positions

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Faust's question at each assignment; the answer is Postgres's, not Kafka's.

        Where there is none, because the database or a broker is away, the reading loop asks again.
        """
        try:
            return await self.find_place(self.assignment())
        except RefusedPlaceError as refused:
            _log.error("position_refused", error=told(refused))
            raise
        except Exception as error:  # noqa: BLE001 (an outage must not end the worker, whatever it looks like)
            _log.error("place_not_found", error=told(error))
            return {}

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget partitions that are someone else's now."""
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._places.pop(tp, None)
            self._durable.pop(tp, None)
        cast("BatchApp", self.app).placed = frozenset(self._places)

    def ack(self, message: Any) -> bool:
        """An agent has taken the event: it says nothing about the database, so nothing is to be committed yet."""
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        if self._waiting_for_ack is not None and not self._waiting_for_ack.done():
            self._waiting_for_ack.set_result(None)
        return True

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> list[TP]:
        return [tp for tp in self._durable if topics is None or tp in topics or tp.topic in topics]

    def _new_offset(self, tp: TP) -> int | None:
        return self._durable.get(tp)

    async def _drain_messages(self, fetcher: Any) -> None:
        """Faust's reading loop: poll, and hand each partition's records over as one event."""
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):  # noqa: SLF001 (Faust's own protocol)
                await self._drain_once()
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    async def _drain_once(self) -> None:
        fetched, _ = await self._wait_next_records(_poll_seconds)
        if self.should_stop:
            return
        for tp, records in (fetched or {}).items():
            if not self.flow_active:
                return  # a rebalance has begun: it finds all places anew before the flow goes on
            batch = await self._next_batch(ensure_TP(tp), records)
            if batch is not None:
                await self._deliver(batch)
        if self.loop.time() >= self._looked_at + _poll_seconds:
            await self._pass_over_nothing()
            unplaced = self.assignment() - self._places.keys()
            if unplaced and self.flow_active:
                await self._find_again(unplaced)
            self._looked_at = self.loop.time()

    async def _next_batch(self, tp: TP, records: Sequence[Record]) -> RecordBatch | None:
        """The batch that comes next in a partition; None where the records are not what comes next."""
        place = self._places.get(tp)
        if place is None:
            return None
        fresh = records
        if fresh and fresh[0].offset < place.expected:
            fresh = [record for record in records if record.offset >= place.expected]
        if not fresh:  # the log begins anew below what was read, or these are from before a seek
            await self._find_again([tp])
            return None
        if not await self._believed(tp, place, fresh[0].offset):
            return None
        next_offset = fresh[-1].offset + 1
        behind = max(self.highwater(tp) - next_offset, 0)
        return RecordBatch(tp, place.expected, next_offset, fresh, place.epoch, behind)

    async def _believed(self, tp: TP, place: _Place, offset: int) -> bool:
        """Whether reading may go on at an offset; a jump over what was expected is read once more first.

        Where Kafka has dropped what was expected, that is a hole, which the source of positions counts: once everything
        before it is in the database.
        """
        if offset <= place.expected:
            return True
        if place.jump == offset and (await self.earliest_offsets(tp))[tp] <= place.expected:
            return True
        if place.jump == offset and max(self._durable.get(tp, 0), place.found) >= place.expected:
            await self._find_again([tp])
            return False
        place.jump = offset
        await self._seek(tp, place.expected)
        return False

    async def _find_again(self, tps: Iterable[TP]) -> None:
        """Ask for places while reading; a refusal ends the worker, anything else is asked again later."""
        try:
            await self.find_place(tps)
        except RefusedPlaceError as refused:
            _log.error("position_refused", error=told(refused))
            await self.app.crash(refused)
        except Exception as error:  # noqa: BLE001 (an outage must not end the worker, whatever it looks like)
            _log.error("place_not_found", error=told(error))

    async def _pass_over_nothing(self) -> None:
        """Where the reader stands behind what was delivered, the offsets between hold no record (C1)."""
        for tp, place in list(self._places.items()):
            position = await self.position(tp) if tp in self.assignment() and self.flow_active else None
            if position is None or position <= place.expected or self._places.get(tp) is not place:
                continue
            if await self._believed(tp, place, position):
                await self._deliver(RecordBatch(tp, place.expected, position, (), place.epoch))

    async def _deliver(self, batch: RecordBatch) -> None:
        message = ConsumerMessage(
            batch.tp.topic,
            batch.tp.partition,
            batch.next_offset - 1,
            batch.records[-1].timestamp / 1000.0 if batch.records else 0.0,
            0,
            (),
            None,
            batch,
            None,
            0,
            0,
            batch.tp,
            generation_id=self.app.consumer_generation_id,
        )
        place = self._places[batch.tp]
        await self.wait_first(self.callback(message), self.suspend_flow.wait())
        if place.epoch == batch.epoch and self._places.get(batch.tp) is place:
            place.expected, place.jump = batch.next_offset, None
            self._read_offset[batch.tp] = batch.next_offset - 1


class BatchTransport(driver.Transport):
    """Faust's aiokafka transport with the batch consumer."""

    Consumer = BatchConsumer


class BatchTopic(faust.Topic):
    """A topic whose events carry a `RecordBatch`: nothing is decoded before the agent asks."""

    def _compile_decode(self) -> None:
        app = self.app

        async def decode(message: Any, *, propagate: bool = False) -> Event:
            del propagate
            return Event(app, None, message.value, message.headers, message)

        self.decode = decode


class BatchApp(faust.App):
    """A Faust app whose agents consume batches. `placed`: the partitions it reads, their positions loaded."""

    position_source: PositionSource
    placed: frozenset[TP] = frozenset()

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """There are no tables, so nothing is kept on disk: the file system may be read-only."""

    def batch_topic(self, name: str) -> BatchTopic:
        """A topic to hang an agent on."""
        return BatchTopic(
            self,
            topics=[name],
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
        )

    @property
    def batch_consumer(self) -> BatchConsumer:
        """The running consumer."""
        return cast("BatchConsumer", self.consumer)

"""What is prepared and waits to be written: which partitions' batches go into the next transaction, and when.

Each partition has a lane of prepared batches, written in order. Transactions grow with the backlog: where the log holds more
than another batch, a lane gathers more before it is written. Where it does not, a lane is written at once, but twenty times a second
and four fifths of the time at most. What a lane holds goes into one transaction with what others hold, as far as there is room: for
so many partitions it costs hardly more than for one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Final, NamedTuple

from faust.types import TP

from pipeline.posting import PreparedBatch
from pipeline.transport import RecordBatch

prepared_records_max: Final = 32_000
transaction_records_max: Final = 16_000
transactions_at_once_max: Final = 3
gather_seconds_max: Final = 2.0
rest_seconds: Final = 0.05
rest_seconds_max: Final = 1.0
small_alone_seconds_max: Final = 1.0


class Waiting(NamedTuple):
    """A piece of a batch as it is to be written, and the batch as it was read."""

    batch: RecordBatch
    prepared: PreparedBatch


@dataclass(slots=True)
class _Lane:
    """A partition's pieces; `since`: when the first of them could have been written. Times are the event loop's, in seconds."""

    tp: TP
    pieces: deque[Waiting] = field(default_factory=deque)
    records: int = 0
    since: float = 0.0
    rested_at: float = 0.0
    busy: bool = False

    @property
    def is_full(self) -> bool:
        """Whether it fills a transaction."""
        return self.records >= transaction_records_max

    def rests(self, now: float) -> bool:
        """Whether it was written a moment ago, and can wait."""
        return now < self.rested_at and not self.is_full


@dataclass(frozen=True, slots=True, eq=False)
class Transaction:
    """What is written at once: pieces of one partition or of several, each partition's in order.

    `is_small`: it holds all that its lanes held, and had room for more.
    """

    pieces: Mapping[TP, Sequence[Waiting]]
    began: float
    is_small: bool

    @property
    def records(self) -> int:
        """How many records it holds."""
        return sum(each.prepared.records for pieces in self.pieces.values() for each in pieces)

    @property
    def first(self) -> RecordBatch:
        """The batch of the first piece."""
        return next(iter(self.pieces.values()))[0].batch

    def alone(self) -> list[Transaction]:
        """The same, each partition's by itself."""
        return [replace(self, pieces={tp: pieces}) for tp, pieces in self.pieces.items()]


class Lanes:
    """The lanes of one agent. `batch_records_max`: what is read at once; a log that holds more has a backlog."""

    def __init__(self, batch_records_max: int) -> None:
        self._batch_records_max = batch_records_max
        self._lanes: dict[TP, _Lane] = {}
        self._in_database: list[Transaction] = []
        self._records = 0

    @property
    def are_full(self) -> bool:
        """Whether nothing more is to be prepared until something has been written."""
        return self._records >= prepared_records_max

    @property
    def are_empty(self) -> bool:
        """Whether nothing waits; what is being written does not."""
        return not any(lane.pieces for lane in self._lanes.values())

    def add(self, tp: TP, pieces: Sequence[Waiting], now: float) -> None:
        """Let pieces wait behind those of their partition."""
        lane = self._lanes.setdefault(tp, _Lane(tp))
        if not lane.pieces:
            lane.since = now
        lane.pieces.extend(pieces)
        records = sum(each.prepared.records for each in pieces)
        lane.records += records
        self._records += records

    def due(self, now: float) -> list[Transaction]:
        """The transactions to begin now; each counts as in the database until `written`."""
        free = sorted(
            (each for each in self._lanes.values() if each.pieces and not each.busy), key=attrgetter("since")
        )
        gathered = [lane for lane in free if self.are_full or not self._gathers(lane, now)]
        ready = [lane for lane in gathered if self.are_full or not lane.rests(now)]
        groups = [[lane] for lane in ready if lane.is_full]
        if any(not lane.is_full for lane in ready):
            groups.append([lane for lane in gathered if not lane.is_full])  # those that only rest come along
        begun: list[Transaction] = []
        for lanes in groups:
            small = sum(lane.records for lane in lanes) < transaction_records_max
            if len(self._in_database) < transactions_at_once_max and not (small and self._one_is_small(now)):
                begun.append(self._begin(lanes, now, small=small))
        return begun

    def written(self, transaction: Transaction, now: float) -> None:
        """A transaction has ended, well or not: its lanes rest, and are still its own.

        A quarter as long as it took: the busier the database, the larger are transactions, and the cheaper. But not as long as an
        outage lasted that it had to wait for.
        """
        self._in_database.remove(transaction)
        rest = min((now - transaction.began) / 4, rest_seconds_max)
        for tp in transaction.pieces:
            self._lanes[tp].rested_at = max(transaction.began + rest_seconds, now + rest)

    def release(self, transaction: Transaction) -> None:
        """Nothing of a transaction is needed any more: its lanes may go on."""
        for tp in transaction.pieces:
            self._lanes[tp].busy = False
        self._records -= transaction.records

    def _gathers(self, lane: _Lane, now: float) -> bool:
        """Whether more of a backlog is to join a lane first."""
        behind = lane.pieces[-1].batch.behind > self._batch_records_max
        return behind and not lane.is_full and now < lane.since + gather_seconds_max

    def _one_is_small(self, now: float) -> bool:
        """Whether a small transaction is in the database: side by side each would last as long as all of them.

        But none waits for long: one may hang that has nothing to do with the others.
        """
        return any(each.is_small and now < each.began + small_alone_seconds_max for each in self._in_database)

    def _begin(self, lanes: Sequence[_Lane], now: float, *, small: bool) -> Transaction:
        """Take of each lane what there is room for in one transaction."""
        room = transaction_records_max
        taken: dict[TP, list[Waiting]] = {}
        for lane in lanes:
            while lane.pieces and (not taken or lane.pieces[0].prepared.records <= room):
                piece = lane.pieces.popleft()
                taken.setdefault(lane.tp, []).append(piece)
                lane.records -= piece.prepared.records
                room -= piece.prepared.records
                lane.busy, lane.since = True, now
        transaction = Transaction(taken, now, small)
        self._in_database.append(transaction)
        return transaction

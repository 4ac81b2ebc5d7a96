"""One Postgres transaction per batch, or for several (L3): positions, ledger, sums, held records, quarantine and counts, or nothing.

Positions move by compare-and-set first, so a worker that has lost its partition writes nothing. Rows that are
surely new are copied straight into the ledger; those that may be duplicates are looked up, and merged. What the database refuses
for its data is bisected down to the record, which is quarantined.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from pipeline import position_store
from pipeline.batch_rows import Part
from pipeline.database import first_line, sqlstate
from pipeline.ordinary import NOTHING_ORDINARY, OrdinaryUsage
from pipeline.prepare import Item, quarantined
from pipeline.recent_identities import RecentIdentities
from pipeline.writing import write
from rollup import posting_store as store
from rollup.posting_store import Counted, Move
from rollup.unposted import QuarantineRow
from schemas.binary import instant_of

_RETRYABLE: Final = frozenset({"40001", "40P01"})
_UNIQUE_VIOLATION: Final = "23505"
_DATA_ERROR_CLASSES: Final = ("22", "23")
_attempts_max: Final = 5


class LostPlaceError(RuntimeError):
    """A position is not where its batch begins: another worker has it, or this one is behind. Read it again."""


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """Messages of one partition, each with its outcome, and the offsets that the position moves between."""

    position_id: int
    first_offset: int
    next_offset: int
    items: Sequence[Item]
    ordinary: OrdinaryUsage = NOTHING_ORDINARY

    @property
    def part(self) -> Part:
        """What is to be written of it."""
        return Part(self.position_id, self.items, self.ordinary)

    @property
    def records(self) -> int:
        """How many records it holds."""
        return self.part.records

    @property
    def move(self) -> Move:
        """What its position is to go over."""
        return Move(self.position_id, self.first_offset, self.next_offset, self.read_through_at)

    @property
    def read_through_at(self) -> datetime | None:
        """The latest Kafka timestamp of the batch: all that was stamped before it has been read (A10)."""
        received, latest = self.ordinary.messages.received, []
        if len(received):
            latest.append(instant_of(int(received.max())))
        return max((*latest, *[item.message.received_at for item in self.items]), default=None)

    def halves(self) -> tuple[PreparedBatch, PreparedBatch]:
        """The batch cut in two between messages, to find the one that the database refuses.

        Raises:
            ValueError: it holds one message only.
        """
        if self.is_one_message:
            raise ValueError("one message cannot be cut in two")
        offsets = self._offsets
        cut = offsets[len(offsets) // 2]
        before = [item for item in self.items if item.message.offset < cut]
        ordinary = int(self.ordinary.messages.offsets.searchsorted(cut))
        return (
            PreparedBatch(
                self.position_id, self.first_offset, cut, before, self.ordinary.at(range(ordinary))
            ),
            PreparedBatch(
                self.position_id,
                cut,
                self.next_offset,
                self.items[len(before) :],
                self.ordinary.at(range(ordinary, self.ordinary.usage.records)),
            ),
        )

    @property
    def is_one_message(self) -> bool:
        """Whether it cannot be cut in two; that message may hold two records."""
        return len(self._offsets) == 1

    def refused(self, why: str) -> PreparedBatch:
        """The batch with each of its messages quarantined, because the database refuses it."""
        ordinary = map(self.ordinary.messages.message, range(self.ordinary.usage.records))
        messages = [*ordinary, *[item.message for item in self.items]]
        items = [
            Item(each, quarantined(self.position_id, each, "refused_by_database", why)) for each in messages
        ]
        return PreparedBatch(self.position_id, self.first_offset, self.next_offset, items)

    @property
    def _offsets(self) -> list[int]:
        return sorted(
            {*self.ordinary.messages.offsets.tolist(), *[item.message.offset for item in self.items]}
        )


def joined(batches: Sequence[PreparedBatch]) -> PreparedBatch:
    """Consecutive batches of one partition as one, to be written in one transaction."""
    items = [item for batch in batches for item in batch.items]
    ordinary = OrdinaryUsage.joined([batch.ordinary for batch in batches])
    first, last = batches[0], batches[-1]
    return PreparedBatch(first.position_id, first.first_offset, last.next_offset, items, ordinary)


def is_away(error: Exception) -> bool:
    """Whether the database could not be asked: then it makes no difference what was to be written."""
    return isinstance(error, DBAPIError) and (error.connection_invalidated or not sqlstate(error))


class BatchPoster:
    """Posts prepared batches; one per worker."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._recent = RecentIdentities()

    def post(self, *batches: PreparedBatch) -> Counter[Counted]:
        """Write batches whole, each of another partition; returns how many records came to what.

        Of several all are written or none: where one is refused, the caller posts each alone.

        Raises:
            LostPlaceError: a position was elsewhere, or, of several, someone is moving it; nothing was written.
            DBAPIError: the database is unavailable, or refuses one of several; nothing was written since the last half that
                committed.
        """
        try:
            try:
                return self._tried(batches)
            except DBAPIError as error:
                if sqlstate(error) != _UNIQUE_VIOLATION:
                    raise
                return self._tried(batches, merge=True)  # what was believed to be new is in the ledger
        except DBAPIError as error:
            if sqlstate(error)[:2] not in _DATA_ERROR_CLASSES or len(batches) > 1:
                raise
            return self._post_around(batches[0], error)

    def _tried(self, batches: Sequence[PreparedBatch], *, merge: bool = False) -> Counter[Counted]:
        """Post, again where others were in the way."""
        for _ in range(1, _attempts_max):
            try:
                return self._post_once(batches, merge=merge)
            except DBAPIError as error:
                if sqlstate(error) not in _RETRYABLE:
                    raise
        return self._post_once(batches, merge=merge)

    def _post_around(self, batch: PreparedBatch, error: DBAPIError) -> Counter[Counted]:
        """Post what the database takes of a batch, and quarantine the message that it refuses."""
        if not batch.is_one_message:
            first, second = batch.halves()
            return self.post(first) + self.post(second)
        if not batch.ordinary.usage.records and all(
            isinstance(item.outcome, QuarantineRow) for item in batch.items
        ):
            raise error
        return self.post(batch.refused(first_line(error)))

    def _post_once(self, batches: Sequence[PreparedBatch], *, merge: bool) -> Counter[Counted]:
        with self._engine.begin() as connection:
            position_store.begin_posting(connection)
            moved = store.move_positions(connection, [each.move for each in batches])
            lost = [each for each in batches if each.position_id not in moved]
            if lost:
                raise LostPlaceError(
                    f"position {lost[0].position_id} is not at offset {lost[0].first_offset}, or someone is moving it"
                )
            written = write(connection, [each.part for each in batches], self._recent, merge=merge)
            store.count(connection, "stream", written.counts)
        self._recent.add(written.new)
        return written.counts

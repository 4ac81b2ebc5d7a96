"""What a transaction is to write, and where each record of it belongs: its own repeats told from what it says first.

Ordinary calls stay columns; what was prepared alone is laid beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeVar, assert_never

import numpy as np

from pipeline.ordinary import NOTHING_ORDINARY, OrdinaryUsage
from pipeline.prepare import Item, Message, SipContextRow
from rollup import standing_store
from rollup.ledger import CONTENT_BYTES, IDENTITY_BYTES, Identity, UsageColumns, UsageRow, in_order
from rollup.posting_store import Counted
from rollup.unposted import Asked, HeldRow, QuarantineRow, RefusedRow
from schemas.binary import Integers, numbers
from schemas.columns import rows_at, rows_joined
from schemas.decoded import Ignored

_Unposted = TypeVar("_Unposted", HeldRow, RefusedRow)


class Part(NamedTuple):
    """Messages of one partition and what they came to: ordinary ones by column, the `items` one by one."""

    position_id: int
    items: Sequence[Item]
    ordinary: OrdinaryUsage = NOTHING_ORDINARY

    @property
    def records(self) -> int:
        """How many records it holds."""
        return self.ordinary.usage.records + len(self.items)


class Told(NamedTuple):
    """A record and the message that told it."""

    row: Asked
    message: Message


class BatchRows:
    """What a transaction writes, by what is to be done with it.

    A record that has an identity has a place: rows of `usage` first (those of `ordinary`, then `alone`), then `unposted`.
    `positions`: by place, where it was read. `order`: the places of usage by identity. `repeats`: the places of those that came
    later under an identity that is here already, each with the place of the first; these are in no `order`. `stood`: by place,
    whether the identity of a first stood before, with its content or another; what stood is not written any more.
    `counts`: how many records came to each outcome so far.
    """

    def __init__(
        self,
        ordinary: OrdinaryUsage,
        alone: Sequence[tuple[UsageRow, Message]],
        unposted: Sequence[Told],
        quarantine: list[QuarantineRow],
        contexts: Sequence[SipContextRow],
        received_first: Sequence[int],
    ) -> None:
        """`received_first`: the positions, in the order in which their records are taken to have been received."""
        self.ordinary, self.alone, self.unposted = ordinary, alone, unposted
        self.usage = ordinary.usage
        if alone:
            self.usage = rows_joined([ordinary.usage, UsageColumns.of([row for row, _ in alone])])
        self.identities = np.append(
            self.usage.identities, np.array([told.row.identity for told in unposted], dtype=IDENTITY_BYTES)
        )
        self.contents = np.append(
            self.usage.contents, np.array([told.row.content for told in unposted], dtype=CONTENT_BYTES)
        )
        self.positions = np.append(
            self.usage.position_ids, numbers([told.row.position_id for told in unposted])
        )
        beside = [*(message for _, message in alone), *(told.message for told in unposted)]
        first_of_message = np.zeros(ordinary.usage.records, dtype=np.int64)
        self._received = (  # the last one counts first
            np.append(first_of_message, numbers([message.ordinal for message in beside])),
            np.append(ordinary.messages.offsets, numbers([message.offset for message in beside])),
            _turns(self.positions, received_first),
        )
        self.stood = np.full(len(self.identities), standing_store.NOTHING, dtype=np.int8)
        self.quarantine, self.contexts = quarantine, contexts
        self.counts: Counter[Counted] = Counter()
        everything, alike = in_order(self.identities)
        self.repeats = self._repeats(alike.tolist())
        self.order = everything[everything < self.usage.records]
        if self.repeats:
            self.order = self.order[~np.isin(self.order, list(self.repeats))]

    def _repeats(self, alike: Iterable[int]) -> dict[int, int]:
        """Of records that may have one identity, those that came later under one, with the first of it."""
        firsts: dict[Identity, int] = {}
        repeats = {}
        for place in self.as_received(alike):
            first = firsts.setdefault(self.identities[place].tobytes(), place)
            if first != place:
                repeats[place] = first
        return repeats

    def as_received(self, places: Iterable[int]) -> list[int]:
        """Places in the order in which their records were received."""
        asked = np.array(list(places), dtype=np.int64)
        received: list[int] = asked[np.lexsort([each[asked] for each in self._received])].tolist()
        return received

    def count(self, positions: Integers, outcome: str, reason: str = "") -> None:
        """Records that were read at some positions came to an outcome."""
        told, numbers_of = np.unique(positions, return_counts=True)
        for position_id, records in zip(told.tolist(), numbers_of.tolist(), strict=True):
            self.counts[Counted(position_id, outcome, reason)] += records

    def places_of(self, identities: Collection[Identity]) -> Integers:
        """The places of the batch's first records under some identities; of those that it has."""
        if not identities:
            return np.arange(0)
        return np.array([self._first[each] for each in identities if each in self._first], dtype=np.int64)

    @cached_property
    def _first(self) -> dict[Identity, int]:
        places = dict(zip(self.identities.tolist(), range(len(self.identities)), strict=True))
        return places | {self.identities[first].tobytes(): first for first in self.repeats.values()}

    def told(self, place: int) -> Told:
        """The record of a place, and its message."""
        if place < self.usage.records:
            return Told(self.usage.row(place), self._message(place))
        return self.unposted[place - self.usage.records]

    def asked(self, places: Sequence[int]) -> list[Asked]:
        """The records of some places."""
        usage = iter(rows_at(self.usage, [place for place in places if place < self.usage.records]).rows())
        return [
            next(usage) if place < self.usage.records else self.unposted[place - self.usage.records].row
            for place in places
        ]

    def _message(self, place: int) -> Message:
        beside = place - self.ordinary.usage.records
        if beside < 0:
            return self.ordinary.messages.message(place)
        if beside < len(self.alone):
            return self.alone[beside][1]
        return self.unposted[place - self.usage.records].message

    def to_post(self) -> Integers:
        """The places of usage that is to be posted still, by identity."""
        left: Integers = self.order[self.stood[self.order] == standing_store.NOTHING]
        return left

    def left(self, kind: type[_Unposted]) -> dict[int, _Unposted]:
        """What of a kind is to be kept still, by place, in the order of identities."""
        rows = {
            place: told.row
            for place, told in enumerate(self.unposted, self.usage.records)
            if isinstance(told.row, kind)
            and place not in self.repeats
            and self.stood[place] == standing_store.NOTHING
        }
        return dict(sorted(rows.items(), key=lambda each: each[1].identity))


def _turns(positions: Integers, received_first: Sequence[int]) -> Integers:
    """For each position, where it stands among some."""
    order = np.argsort(received_first)
    turns: Integers = order[np.array(received_first, dtype=np.int64)[order].searchsorted(positions)]
    return turns


def sorted_out(parts: Sequence[Part]) -> BatchRows:
    """What a transaction writes, by what is to be done with each record; what needs no more than counting is counted.

    Of two records with one identity the one that was received first stands (L2): within a partition by its offset, and of
    two partitions, each of which is in one part only, the one that is named first.
    """
    alone, unposted = [], []
    quarantine: list[QuarantineRow] = []
    contexts: list[SipContextRow] = []
    ignored: Counter[Counted] = Counter()
    for part in parts:
        for item in part.items:
            outcome = item.outcome
            match outcome:
                case UsageRow():
                    alone.append((outcome, item.message))
                case HeldRow() | RefusedRow():
                    unposted.append(Told(outcome, item.message))
                case QuarantineRow():
                    quarantine.append(outcome)
                case SipContextRow():
                    contexts.append(outcome)
                case Ignored(reason):
                    ignored[Counted(part.position_id, "ignored", reason)] += 1
                case _:
                    assert_never(outcome)
    ordinary = OrdinaryUsage.joined([part.ordinary for part in parts]) if parts else NOTHING_ORDINARY
    rows = BatchRows(ordinary, alone, unposted, quarantine, contexts, [part.position_id for part in parts])
    rows.counts.update(ignored)
    return rows

"""What a batch holds, and where each record of it belongs: its own repeats told from what it says first.

Ordinary calls stay columns; what was prepared alone is laid beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeVar, assert_never

import numpy as np

from pipeline.ordinary import OrdinaryUsage
from pipeline.prepare import Item, Message, SipContextRow
from rollup import standing_store
from rollup.ledger import CONTENT_BYTES, IDENTITY_BYTES, Identity, UsageColumns, UsageRow, in_order
from rollup.unposted import Asked, HeldRow, QuarantineRow, RefusedRow
from schemas.binary import Integers
from schemas.columns import rows_joined
from schemas.decoded import Ignored

_Unposted = TypeVar("_Unposted", HeldRow, RefusedRow)


class Told(NamedTuple):
    """A record and the message that told it."""

    row: Asked
    message: Message


class BatchRows:
    """A batch by what is to be done with it.

    A record that has an identity has a place: rows of `usage` first (those of `ordinary`, then `alone`), then `unposted`.
    `order`: the places of usage by identity. `repeats`: the places of those that came later under an identity of the batch,
    each with the place of the first; these are in no `order`. `stood`: by place, whether the identity of a first stood before,
    with its content or another; what stood is not written any more.
    """

    def __init__(
        self,
        ordinary: OrdinaryUsage,
        alone: Sequence[tuple[UsageRow, Message]],
        unposted: Sequence[Told],
        quarantine: list[QuarantineRow],
        contexts: Sequence[SipContextRow],
    ) -> None:
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
        self.stood = np.full(len(self.identities), standing_store.NOTHING, dtype=np.int8)
        self.quarantine, self.contexts = quarantine, contexts
        everything, alike = in_order(self.identities)
        self.repeats = self._repeats(alike.tolist())
        self.order = everything[everything < self.usage.records]
        if self.repeats:
            self.order = self.order[~np.isin(self.order, list(self.repeats))]

    def _repeats(self, alike: Iterable[int]) -> dict[int, int]:
        """Of records that may have one identity, those that came later under one, with the first of it."""
        received = {place: self._message(place) for place in alike}
        firsts: dict[Identity, int] = {}
        repeats = {}
        for place in sorted(received, key=lambda each: (received[each].offset, received[each].ordinal)):
            first = firsts.setdefault(self.identities[place].tobytes(), place)
            if first != place:
                repeats[place] = first
        return repeats

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


def sorted_out(items: Sequence[Item], ordinary: OrdinaryUsage, counts: Counter[tuple[str, str]]) -> BatchRows:
    """A batch by what is to be done with each record; what needs no more than counting is counted."""
    alone, unposted = [], []
    quarantine: list[QuarantineRow] = []
    contexts: list[SipContextRow] = []
    for item in items:
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
                counts["ignored", reason] += 1
            case _:
                assert_never(outcome)
    return BatchRows(ordinary, alone, unposted, quarantine, contexts)

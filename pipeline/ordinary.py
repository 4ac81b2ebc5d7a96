"""The quick lane: ordinary calls by the batch, column by column; all but a few records are such.

Ordinary is a complete call that is written plainly in the canonical form, whose owner is known, and of which no rule has
anything to say. It comes to what pipeline/prepare.py makes of it alone; every other message is left to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol, cast

import numpy as np

from attribution.attribute import attribute_each
from pipeline.prepare import InputSpec, Item, Message, Snapshot, decode, latest_start, prepare
from rollup.classify import CLASSES, ClassFacts, short_duration_seconds_limit
from rollup.ledger import Tally, UsageColumns
from rollup.ledger_rows import Decisions, usage_columns
from rollup.numbering import KINDS, NumberKind
from rollup.plausible import ordinary
from rollup.terms import AccountTerms
from schemas.binary import EPOCH, NEVER, Integers, instant_of
from schemas.columns import CallColumns, rows_at, rows_joined
from schemas.decoded import Decoded, Rejected
from schemas.memo import Memo
from schemas.numbers import dialled_each
from schemas.plain import complete_calls
from schemas.standings import Standings

_EPOCH_MILLISECONDS: Final = int(EPOCH.timestamp() * 1000)
_MILLISECOND: Final = 1000
_short_millionths: Final = short_duration_seconds_limit * 10**6


class Record(Protocol):
    """A Kafka record as aiokafka reads it; `timestamp` is in milliseconds since 1970."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Messages(NamedTuple):
    """Kafka records by column; `received` is their timestamps, in microseconds since `schemas.binary.EPOCH`."""

    offsets: Integers
    received: Integers
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Messages:
        """The columns of some records, in their order."""
        timestamps = np.array([each.timestamp for each in records], dtype=np.int64)
        return cls(
            np.array([each.offset for each in records], dtype=np.int64),
            (timestamps - _EPOCH_MILLISECONDS) * _MILLISECOND,
            [each.key for each in records],
            [each.value for each in records],
        )

    def message(self, place: int) -> Message:
        """One record."""
        received_at = instant_of(int(self.received[place]))
        return Message(int(self.offsets[place]), received_at, self.keys[place], self.values[place])


class OrdinaryUsage(NamedTuple):
    """Ordinary calls as rows of the ledger, and the message of each."""

    usage: UsageColumns
    messages: Messages

    @classmethod
    def joined(cls, parts: Sequence[OrdinaryUsage]) -> OrdinaryUsage:
        """Consecutive parts as one."""
        return cls(
            rows_joined([each.usage for each in parts]), rows_joined([each.messages for each in parts])
        )

    def at(self, places: Sequence[int]) -> OrdinaryUsage:
        """Some of the calls."""
        return OrdinaryUsage(rows_at(self.usage, places), rows_at(self.messages, places))


NOTHING_ORDINARY: Final = OrdinaryUsage(UsageColumns.of(()), Messages.of(()))


class Read(NamedTuple):
    """What messages say: `calls`, which may be ordinary, with the message of each, and all `others` one by one."""

    calls: CallColumns
    messages: Messages
    others: Sequence[tuple[Message, Decoded]]

    @property
    def records(self) -> int:
        """How many records it is."""
        return self.calls.records + len(self.others)

    @property
    def unreadable(self) -> int:
        """How many of them cannot be read."""
        return sum(isinstance(what, Rejected) for _, what in self.others)

    @property
    def latest_start(self) -> datetime | None:
        """When the latest record started: a snapshot older than that must be refreshed first (A7)."""
        started = [
            latest_start(self.others),
            instant_of(int(self.calls.started.max())) if self.calls.records else None,
        ]
        return max((each for each in started if each is not None), default=None)


def read(spec: InputSpec, messages: Messages) -> Read:
    """Read messages; nothing raises, whatever the bytes."""
    if spec.kind == "calls" and spec.format.name == "canonical":
        places, calls = complete_calls(messages.values)
    else:
        places, calls = [], CallColumns.of(())
    all_taken = len(places) == len(messages.values)
    left = [] if all_taken else sorted(set(range(len(messages.values))).difference(places))
    others = decode(spec, map(messages.message, left))
    return Read(calls, rows_at(messages, places) if left else messages, others)


class Decided(NamedTuple):
    """Ordinary calls with all that was decided about them, and the places of those that are not ordinary."""

    calls: CallColumns
    messages: Messages
    decisions: Decisions
    left: Sequence[int]


def prepare_batch(spec: InputSpec, told: Read, snapshot: Snapshot) -> tuple[OrdinaryUsage, list[Item]]:
    """What is to be written about each message: for ordinary calls by column, for all others one by one."""
    if not told.calls.records:
        return NOTHING_ORDINARY, prepare(spec, told.others, snapshot)
    decided = decide(spec, told, snapshot)
    others = told.others
    if decided.left:
        alone = decode(spec, map(told.messages.message, decided.left))
        others = sorted([*others, *alone], key=_in_order)
    ordinary_usage = OrdinaryUsage(usage_columns(decided.calls, decided.decisions), decided.messages)
    return ordinary_usage, prepare(spec, others, snapshot) if others else []


def _in_order(told: tuple[Message, Decoded]) -> tuple[int, int]:
    return told[0].offset, told[0].ordinal


def decide(spec: InputSpec, told: Read, snapshot: Snapshot) -> Decided:
    """Which calls are ordinary, and whose they are and what they cost."""
    calls, messages = told.calls, told.messages
    attributions = attribute_each(calls, snapshot.directory, spec.rules)
    accounts, account = np.unique(attributions.standings.account_ids, return_inverse=True)
    terms = [snapshot.terms.get(each) for each in accounts.tolist()]  # none of `NEVER`, nobody's
    terms_each = [terms[each] for each in account.tolist()]
    owned = [
        each is not None and each.currency == currency
        for each, currency in zip(terms_each, calls.currencies, strict=True)
    ]
    fits = ordinary(calls, messages.received, snapshot.oldest) & np.array(owned, dtype=np.bool_)
    fits[list(attributions.held)] = False
    places, left, standings = np.flatnonzero(fits), np.flatnonzero(~fits), attributions.standings
    if len(left):
        calls, messages = rows_at(calls, places), rows_at(messages, places)
        standings = rows_at(standings, places)
        terms_each = [terms_each[place] for place in places.tolist()]
    owners = cast("list[AccountTerms]", terms_each)
    return Decided(calls, messages, _decisions(spec, calls, messages, standings, owners), left.tolist())


def _decisions(
    spec: InputSpec,
    calls: CallColumns,
    messages: Messages,
    standings: Standings,
    owners: Sequence[AccountTerms],
) -> Decisions:
    """Class, quantities and cost as the switch sent them, which is what `rollup.rate` says of a call that is complete."""
    seconds, homes = calls.answered_seconds, [each.home_country for each in owners]
    called = dialled_each(calls.to_numbers, homes)
    tallies = _TALLIES.each(
        zip(
            calls.services,
            calls.directions,
            KINDS.each(called),
            ((seconds > 0) & (seconds < _short_millionths)).tolist(),
            homes,
            [each.domestic_regions for each in owners],
            cast("Sequence[str]", calls.currencies),
            strict=True,
        )
    )
    return Decisions(
        standings=standings,
        tallies=tallies,
        tariff_ids=np.full(calls.records, NEVER),
        called=called,
        answered=(calls.answered != NEVER) | (seconds > 0),
        answered_millionths=seconds,
        billed_seconds=calls.billed_seconds,
        cost_millionths=calls.costs,
        received=messages.received,
        position_ids=np.full(calls.records, spec.position_id, dtype=np.int64),
        kafka_offsets=messages.offsets,
    )


def _tally(told: tuple[str, str, NumberKind, bool, str, frozenset[str], str]) -> Tally:
    *facts, currency = told
    return Tally(CLASSES[cast("ClassFacts", tuple(facts))].slug, currency)


_TALLIES: Final = Memo(_tally, 4096)

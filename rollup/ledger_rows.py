"""How usage is written into the ledger: calls by the batch, column by column, as rows that are ready to be copied.

A call at a time would cost many times as much (deploy/decisions/0013). Every column is one expression over the batch;
what a row holds, and in which order, is `LEDGER_COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollup.ledger import (
    CONTENT_BYTES,
    IDENTITY_BYTES,
    IDENTITY_FIELDS,
    Standing,
    Tally,
    UsageColumns,
    UsageRow,
)
from rollup.rate import Rated
from schemas.amounts import millionths_each
from schemas.binary import (
    DAY_MICROSECONDS,
    Integers,
    as_bytes,
    binary_address,
    binary_numerics,
    binary_rows,
    binary_text,
    binary_texts,
    microseconds_each,
    numbers,
)
from schemas.columns import CallColumns
from schemas.identity import digests, record_digests
from schemas.memo import Memo
from schemas.numbers import dialled_each
from schemas.records import CallRecord
from schemas.standings import Grounds, Standings


class Decisions(NamedTuple):
    """What was decided about calls, by column, and where each was received.

    `standings`: whose they are. `tallies`: class and currency. `tariff_ids`: by which they are priced, if by one.
    `called`: the called numbers as `schemas.numbers.dialled` writes them. `answered_millionths`, `billed_seconds`, `cost_millionths`: what enters
    the ledger. `received`: Kafka's timestamps, in microseconds since `schemas.binary.EPOCH`.
    """

    standings: Standings
    tallies: Sequence[Tally]
    tariff_ids: Integers
    called: Sequence[str | None]
    answered: NDArray[np.bool_]
    answered_millionths: Integers
    billed_seconds: Integers
    cost_millionths: Integers
    received: Integers
    position_ids: Integers
    kafka_offsets: Integers


class Usage(msgspec.Struct, frozen=True, gc=False):
    """A record with all that was decided about it, and where it was received.

    `home_country` is that of its dialling rules; `received_at` is Kafka's timestamp.
    """

    record: CallRecord
    standing: Standing
    rated: Rated
    home_country: str
    received_at: datetime
    position_id: int
    kafka_offset: int


def usage_rows(usages: Sequence[Usage]) -> list[UsageRow]:
    """The ledger row of each record whose tenant and cost are decided."""
    if not usages:
        return []
    rated, standings = [each.rated for each in usages], [each.standing for each in usages]
    columns = usage_columns(
        CallColumns.of([each.record for each in usages]),
        Decisions(
            Standings(
                numbers([each.account_id for each in standings]),
                numbers([each.tenant_id for each in standings]),
                numbers([each.assignment_id for each in standings]),
                np.array(
                    [Grounds(each.rule, each.reason, each.header_ignored) for each in standings],
                    dtype=np.object_,
                ),
            ),
            [Tally(each.usage_class, each.currency) for each in rated],
            numbers([each.tariff_id for each in rated]),
            dialled_each([each.record.to_number for each in usages], [each.home_country for each in usages]),
            np.array([each.answered for each in rated], dtype=np.bool_),
            millionths_each([each.answered_seconds for each in rated]),
            numbers([each.billed_seconds for each in rated]),
            millionths_each([each.cost for each in rated]),
            microseconds_each([each.received_at for each in usages]),
            numbers([each.position_id for each in usages]),
            numbers([each.kafka_offset for each in usages]),
        ),
    )
    return columns.rows()


def usage_columns(calls: CallColumns, decisions: Decisions) -> UsageColumns:
    """The ledger rows of calls whose tenant and cost are decided."""
    parts, standings = _parts(calls), decisions.standings
    keys = _sixteen_bytes(record_digests(zip(calls.switches, calls.ids, strict=True)))
    contents = _sixteen_bytes(_contents(calls, parts))
    dates = (calls.started // DAY_MICROSECONDS).astype(np.int32)
    numbers_of_rows = binary_rows(
        [
            *(dates, keys, contents),
            *(standings.account_ids, standings.tenant_ids, standings.assignment_ids, decisions.tariff_ids),
            *(calls.started, calls.answered, calls.ended),
            *(decisions.answered, binary_numerics(decisions.answered_millionths)),
            *(decisions.billed_seconds.astype(np.int32), binary_numerics(decisions.cost_millionths)),
            *(decisions.received, decisions.position_ids.astype(np.int32), decisions.kafka_offsets),
        ]
    )
    fields = zip(
        numbers_of_rows,
        _GROUNDS.each(standings.grounds.tolist()),
        TALLIES.each(decisions.tallies),
        parts.kinds,
        binary_texts(calls.ids),
        parts.call_ids,
        binary_texts(calls.from_numbers),
        parts.called if decisions.called is calls.to_numbers else binary_texts(decisions.called),
        parts.sources,
        parts.names,
        strict=True,
    )
    identities = np.empty(calls.records, dtype=IDENTITY_FIELDS)
    identities["date"], identities["key"] = dates, keys
    return UsageColumns(
        identities.view(IDENTITY_BYTES),
        contents,
        standings.account_ids,
        standings.tenant_ids,
        decisions.tallies,
        decisions.answered,
        decisions.answered_millionths,
        decisions.billed_seconds,
        decisions.cost_millionths,
        calls.started,
        decisions.position_ids,
        decisions.kafka_offsets,
        list(map(b"".join, fields)),
    )


def content_ids(records: Sequence[CallRecord]) -> list[bytes]:
    """A hash of what matters of each record for attribution, class, quantity and cost: nothing else makes it another (L2)."""
    return content_columns(CallColumns.of(records))


def content_columns(calls: CallColumns) -> list[bytes]:
    """`content_ids` of calls by column."""
    return _contents(calls, _parts(calls))


class _Parts(NamedTuple):
    """Fields that stand in a row as the switch sent them, and that make a record what it is."""

    kinds: Sequence[bytes]
    call_ids: Sequence[bytes]
    called: Sequence[bytes]
    sources: Sequence[bytes]
    names: Sequence[bytes]


def _parts(calls: CallColumns) -> _Parts:
    return _Parts(
        _KINDS.each(zip(calls.switches, calls.services, calls.directions, strict=True)),
        binary_texts(calls.call_ids),
        binary_texts(calls.to_numbers),
        _SOURCES.each(calls.sources),
        _NAMES.each(calls.names),
    )


def _contents(calls: CallColumns, parts: _Parts) -> list[bytes]:
    """Each part is of one width or has its length before it, so no two different lists of parts read alike."""
    numbers_told = np.empty((calls.records, 6), dtype=">i8")
    numbers_told[:, 0], numbers_told[:, 1], numbers_told[:, 2] = calls.started, calls.answered, calls.ended
    numbers_told[:, 3], numbers_told[:, 4] = calls.answered_seconds, calls.billed_seconds
    numbers_told[:, 5] = calls.costs
    facts = zip(
        as_bytes(numbers_told),
        parts.kinds,
        parts.call_ids,
        parts.called,
        parts.sources,
        parts.names,
        _CURRENCIES.each(calls.currencies),
        calls.finer,
        strict=True,
    )
    return digests(map(b"".join, facts))


def _sixteen_bytes(each: Iterable[bytes]) -> NDArray[np.void]:
    return np.frombuffer(b"".join(each), dtype=CONTENT_BYTES)


def _ground(grounds: Grounds) -> bytes:
    return binary_text(grounds.rule) + binary_text(grounds.reason) + binary_text(grounds.header_ignored)


def _tally(tally: Tally) -> bytes:
    return binary_text(tally.usage_class) + binary_text(tally.currency)


TALLIES: Final = Memo(_tally, 4096)
"""The columns `usage_class` and `currency`."""


def _kind(named: tuple[str, str, str]) -> bytes:
    switch, service, direction = named
    return binary_text(switch) + binary_text(service) + binary_text(direction)


def _name(header: str | None) -> bytes:
    """Postgres stores every character but NUL, which stands there as JSON writes it; an empty header is none."""
    return binary_text(header.replace("\0", "\\u0000") if header else None)


_GROUNDS: Final = Memo(_ground, 4096)
_KINDS: Final = Memo(_kind, 4096)
_SOURCES: Final = Memo(binary_address)
_NAMES: Final = Memo(_name)
_CURRENCIES: Final = Memo(binary_text, 4096)

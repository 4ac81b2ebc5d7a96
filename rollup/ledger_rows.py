"""How usage is written into the ledger: records by the batch, column by column, as rows that are ready to be copied.

A record at a time would cost four times as much (deploy/decisions/0013). Every column is one expression over the batch;
what a row holds, and in which order, is `LEDGER_COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import repeat
from struct import Struct
from typing import Final, NamedTuple

import msgspec

from rollup.ledger import Payer, Standing, UsageRow
from rollup.rate import Rated
from schemas.binary import (
    binary_address,
    binary_bigint,
    binary_instants,
    binary_int,
    binary_numeric,
    binary_numeric_length,
    binary_text,
    binary_texts,
    day_number,
    microseconds_each,
)
from schemas.identity import digests, record_digests
from schemas.numbers import dialled
from schemas.records import CallRecord

# The columns of a ledger row but for its posting period, in the order of `UsageRow.line`.
LEDGER_COLUMNS: Final = (
    *("started_date", "key", "content"),
    *("account_id", "tenant_id", "rule", "reason", "assignment_id", "header_ignored"),
    *("usage_class", "tariff_id", "currency"),
    *("switch", "service", "direction"),
    *("record_id", "call_id", "from_number", "to_number", "source_ip", "x_tenant"),
    *("started_at", "answered_at", "ended_at"),
    *("answered", "answered_seconds", "billed_seconds", "cost"),
    *("received_at", "position_id", "kafka_offset"),
)
_HEAD: Final = Struct(">i4si16si16s").pack  # each with its length before it, here and below
_AMOUNTS: Final = Struct(f">i?i{binary_numeric_length}siii{binary_numeric_length}s").pack
_COORDINATES: Final = Struct(">iqiiiq").pack


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
    records, rated = [each.record for each in usages], [each.rated for each in usages]
    facts = _facts(records)
    keys, contents = record_digests((each.switch, each.id) for each in records), _contents(records, facts)
    dates = [_day_and_month(each.started_at.date()) for each in records]
    days = [day for day, _ in dates]
    standings = [
        _standing(each.standing, each.rated.usage_class, each.rated.tariff_id, each.rated.currency)
        for each in usages
    ]
    lines = map(
        b"".join,
        zip(
            map(_HEAD, repeat(4), days, repeat(16), keys, repeat(16), contents),
            [columns for _, columns in standings],
            facts.kinds,
            binary_texts([each.id for each in records]),
            facts.call_ids,
            binary_texts([each.from_number for each in records]),
            binary_texts(
                [
                    dialled(each.record.to_number, each.home_country) if each.record.to_number else None
                    for each in usages
                ]
            ),
            facts.sources,
            facts.names,
            *facts.instants,
            _amounts(rated),
            _coordinates(usages),
            strict=True,
        ),
    )
    return list(
        map(
            UsageRow,
            map(bytes.__add__, days, keys),
            contents,
            [month for _, month in dates],
            [payer for payer, _ in standings],
            [each.answered for each in rated],
            [each.answered_seconds for each in rated],
            [each.billed_seconds for each in rated],
            [each.cost for each in rated],
            [each.started_at for each in records],
            [each.switch for each in records],
            [each.id for each in records],
            [each.position_id for each in usages],
            [each.kafka_offset for each in usages],
            lines,
        )
    )


def content_ids(records: Sequence[CallRecord]) -> list[bytes]:
    """A hash of what matters of each record for attribution, class, quantity and cost: nothing else makes it another (L2)."""
    return _contents(records, _facts(records))


class _Facts(NamedTuple):
    """Columns that stand in a row as the switch sent them, and that make a record what it is."""

    kinds: list[bytes]
    call_ids: list[bytes]
    sources: list[bytes]
    names: list[bytes]
    instants: tuple[list[bytes], list[bytes], list[bytes]]


def _facts(records: Sequence[CallRecord]) -> _Facts:
    return _Facts(
        [_kind(each.switch, each.service, each.direction) for each in records],
        binary_texts([each.call_id for each in records]),
        [binary_address(each.source_ip) for each in records],
        binary_texts([_storable(each.x_tenant) if each.x_tenant else None for each in records]),
        (
            binary_instants([each.started_at for each in records]),
            binary_instants([each.answered_at for each in records]),
            binary_instants([each.ended_at for each in records]),
        ),
    )


def _contents(records: Sequence[CallRecord], facts: _Facts) -> list[bytes]:
    """Each part has its length before it, so no two different lists of parts read alike."""
    return digests(
        map(
            b"".join,
            zip(
                facts.kinds,
                facts.call_ids,
                binary_texts([each.to_number for each in records]),
                facts.sources,
                facts.names,
                *facts.instants,
                [_exactly(each.answered_seconds) for each in records],
                [binary_int(each.billed_seconds) for each in records],
                [_exactly(each.cost) for each in records],
                [_currency(each.currency) for each in records],
                strict=True,
            ),
        )
    )


def _amounts(rated: Sequence[Rated]) -> Iterator[bytes]:
    return map(
        _AMOUNTS,
        repeat(1),
        [each.answered for each in rated],
        repeat(binary_numeric_length),
        [binary_numeric(each.answered_seconds) for each in rated],
        repeat(4),
        [each.billed_seconds for each in rated],
        repeat(binary_numeric_length),
        [binary_numeric(each.cost) for each in rated],
    )


def _coordinates(usages: Sequence[Usage]) -> Iterator[bytes]:
    return map(
        _COORDINATES,
        repeat(8),
        microseconds_each([each.received_at for each in usages]),
        repeat(4),
        [each.position_id for each in usages],
        repeat(8),
        [each.kafka_offset for each in usages],
    )


@lru_cache(maxsize=4096)
def _day_and_month(started_date: date) -> tuple[bytes, date]:
    """A date as it stands in an identity, and the first day of its month."""
    return day_number(started_date).to_bytes(4, "big", signed=True), started_date.replace(day=1)


@lru_cache(maxsize=65_536)
def _standing(
    standing: Standing, usage_class: str, tariff_id: int | None, currency: str
) -> tuple[Payer, bytes]:
    """Who pays, and the columns from `account_id` to `currency`; the same for most of a tenant's records."""
    columns = (
        binary_bigint(standing.account_id),
        binary_bigint(standing.tenant_id),
        binary_text(standing.rule),
        binary_text(standing.reason),
        binary_bigint(standing.assignment_id),
        binary_text(standing.header_ignored),
        binary_text(usage_class),
        binary_bigint(tariff_id),
        binary_text(currency),
    )
    return Payer(standing.account_id, standing.tenant_id, usage_class, currency), b"".join(columns)


@lru_cache(maxsize=4096)
def _kind(switch: str, service: str, direction: str) -> bytes:
    return binary_text(switch) + binary_text(service) + binary_text(direction)


def _storable(text: str) -> str:
    """Postgres stores every character but NUL, which stands there as JSON writes it."""
    return text.replace("\0", "\\u0000")


@lru_cache(maxsize=65_536)
def _exactly(amount: Decimal | None) -> bytes:
    """One text for equal amounts: 180.000 and 180 are the same."""
    return binary_text(None if amount is None else format(amount.normalize(), "f"))


_currency: Final = lru_cache(maxsize=4096)(binary_text)

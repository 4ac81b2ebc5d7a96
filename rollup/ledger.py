"""What goes into the ledger, and what makes it the same record again (L1, L2).

A `UsageRow` is one line of the ledger but for its posting period, which only the posting transaction knows (L5).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple, Protocol

import msgspec
import orjson

from rollup.rate import Rated
from schemas.binary import (
    binary_address,
    binary_bigint,
    binary_instant,
    binary_numeric,
    binary_numeric_length,
    binary_text,
    day_number,
    microseconds,
)
from schemas.identity import digest, record_digest
from schemas.numbers import dialled
from schemas.records import CallRecord

_MIDNIGHT_MARGIN: Final = timedelta(minutes=5)
_LAST_HOUR: Final = 23

Identity = bytes
"""A record's place in the ledger's unique index (L1): the UTC date it started on, as Postgres counts it, and its key.

Twenty bytes that sort as the index does; made by `identity_of`.
"""


class Standing(Hashable, Protocol):
    """Why a record stands where it stands: what attribution decided, and by which assignment; hashable.

    `account_id` None: nobody's. `tenant_id` None: the account's own, for `reason`. `header_ignored`: see A4.
    """

    @property
    def account_id(self) -> int | None: ...  # noqa: D102 (told above)
    @property
    def tenant_id(self) -> int | None: ...  # noqa: D102
    @property
    def rule(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str | None: ...  # noqa: D102
    @property
    def assignment_id(self) -> int | None: ...  # noqa: D102
    @property
    def header_ignored(self) -> str | None: ...  # noqa: D102


class Coordinates(msgspec.Struct, frozen=True, gc=False):
    """Where a record was received: Kafka's timestamp, the partition's position, the offset."""

    received_at: datetime
    position_id: int
    kafka_offset: int


class Payer(NamedTuple):
    """Whose usage it is, and of which class: what monthly usage adds up by, within a month."""

    account_id: int | None
    tenant_id: int | None
    usage_class: str
    currency: str


class UsageRow(msgspec.Struct, frozen=True, gc=False):
    """One record as the ledger keeps it: `line` holds the columns `LEDGER_COLUMNS`, ready to be copied.

    Beside it stand the facts that a posting transaction asks for. `month`: the first day of the month it started in.
    """

    identity: Identity
    content: bytes
    month: date
    payer: Payer
    answered: bool
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal
    started_at: datetime
    switch: str
    record_id: str
    position_id: int
    kafka_offset: int
    line: bytes


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
identity_bytes: Final = 20
_IDENTITY: Final = Struct(">i16s").pack
_DATE: Final = Struct(">i").unpack_from
_HEAD: Final = Struct(">i4si16si16s").pack
_INSTANTS: Final = Struct(">iqiqiq").pack
_POSTGRES_FIRST_DAY: Final = date(2000, 1, 1).toordinal()
_AMOUNTS: Final = Struct(f">i?i{binary_numeric_length}siii{binary_numeric_length}siqiiiq").pack


def usage_row(
    record: CallRecord, standing: Standing, rated: Rated, home_country: str, received: Coordinates
) -> UsageRow:
    """The ledger row of a record whose tenant and cost are decided; `home_country` is that of its dialling rules."""
    started_at = record.started_at
    day, month = _day_and_month(started_at.date())
    key, content = record_digest(record.switch, record.id), content_id(record)
    payer, standing_columns = _standing(standing, rated.usage_class, rated.tariff_id, rated.currency)
    line = b"".join(
        (
            _HEAD(4, day, 16, key, 16, content),
            standing_columns,
            _kind(record.switch, record.service, record.direction),
            binary_text(record.id),
            binary_text(record.call_id),
            binary_text(record.from_number),
            binary_text(dialled(record.to_number, home_country) if record.to_number else None),
            binary_address(record.source_ip),
            binary_text(_storable(record.x_tenant) if record.x_tenant else None),
            _instants(record),
            _AMOUNTS(  # each with its length before it
                1,
                rated.answered,
                binary_numeric_length,
                binary_numeric(rated.answered_seconds),
                4,
                rated.billed_seconds,
                binary_numeric_length,
                binary_numeric(rated.cost),
                8,
                microseconds(received.received_at),
                4,
                received.position_id,
                8,
                received.kafka_offset,
            ),
        )
    )
    return UsageRow(
        day + key,
        content,
        month,
        payer,
        rated.answered,
        rated.answered_seconds,
        rated.billed_seconds,
        rated.cost,
        started_at,
        record.switch,
        record.id,
        received.position_id,
        received.kafka_offset,
        line,
    )


def identity_of(started_date: date, key: bytes) -> Identity:
    """The identity of a key and the date it started on."""
    return _IDENTITY(day_number(started_date), key)


def date_of(identity: Identity) -> date:
    """The date in an identity."""
    return date.fromordinal(_DATE(identity)[0] + _POSTGRES_FIRST_DAY)


def key_of(identity: Identity) -> str:
    """The key in an identity, as 32 hexadecimal digits."""
    return identity[4:].hex()


class UsageGroup(NamedTuple):
    """What one row of monthly usage adds up, but for its writer's shard."""

    period: date
    usage_period: date
    account_id: int | None
    tenant_id: int | None
    usage_class: str
    currency: str


class UsageSums(NamedTuple):
    """The sums of one group; every record is an attempt, every answered one a call."""

    attempts: int
    calls: int
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal


def content_id(record: CallRecord) -> bytes:
    """A hash of what matters for attribution, class, quantity and cost (L2): nothing else makes a record another."""
    facts = (
        record.service,
        record.direction,
        record.call_id,
        record.to_number,
        record.source_ip,
        record.x_tenant,
        record.started_at,
        record.answered_at,
        record.ended_at,
        None if record.answered_seconds is None else _shortest(record.answered_seconds),
        record.billed_seconds,
        None if record.cost is None else _shortest(record.cost),
        record.currency,
    )
    return digest(orjson.dumps(facts))


def nearby_midnight(started_at: datetime) -> date | None:
    """The date that begins at the UTC midnight within five minutes of an instant, if there is one (L1)."""
    if 0 < started_at.hour < _LAST_HOUR:
        return None
    after = (started_at + _MIDNIGHT_MARGIN).date()
    return after if after != (started_at - _MIDNIGHT_MARGIN).date() else None


def sums_of(rows: Iterable[UsageRow], posting_period: Mapping[date, date]) -> dict[UsageGroup, UsageSums]:
    """Rows added up by group; `posting_period` says for each month of `started_at` where it is posted (L5)."""
    sums: dict[tuple[date, Payer], list[int | Decimal]] = {}
    for row in rows:
        total = sums.get((row.month, row.payer))
        if total is None:
            total = sums[row.month, row.payer] = [0, 0, Decimal(0), 0, Decimal(0)]
        total[0] += 1
        total[1] += row.answered
        total[2] += row.answered_seconds
        total[3] += row.billed_seconds
        total[4] += row.cost
    return {
        UsageGroup(posting_period[month], month, *payer): UsageSums(*total)  # type: ignore[arg-type]
        for (month, payer), total in sums.items()
    }


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


def _instants(record: CallRecord) -> bytes:
    if record.answered_at is None or record.ended_at is None:
        instants = (record.started_at, record.answered_at, record.ended_at)
        return b"".join([binary_instant(each) for each in instants])
    started, answered = microseconds(record.started_at), microseconds(record.answered_at)
    return _INSTANTS(8, started, 8, answered, 8, microseconds(record.ended_at))


def _storable(text: str) -> str:
    """Postgres stores every character but NUL, which stands there as JSON writes it."""
    return text.replace("\0", "\\u0000")


@lru_cache(maxsize=65_536)
def _shortest(amount: Decimal) -> str:
    """One text for equal amounts: 180.000 and 180 are the same."""
    return format(amount.normalize(), "f")

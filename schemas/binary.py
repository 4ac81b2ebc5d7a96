"""How a row is written in Postgres's binary COPY format: each field as its length and its bytes. Pure.

For the ledger, where reading text would cost the database more than all else (deploy/decisions/0013).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import repeat
from struct import Struct
from typing import Final, cast

from schemas.network import Address, parsed

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)  # what Postgres counts dates and instants from
_FIRST_DAY: Final = EPOCH.date().toordinal()
_DAY_MICROSECONDS: Final = 86_400_000_000
_SECOND_MICROSECONDS: Final = 1_000_000

BINARY_NULL: Final = b"\xff\xff\xff\xff"
_LENGTH: Final = Struct(">i").pack
_INT: Final = Struct(">ii").pack
_WHOLE: Final = Struct(">iq").pack
_NUMERIC: Final = Struct(">hhHhHHHHHH").pack
binary_numeric_length: Final = 20
_GROUP: Final = 10_000  # a numeric is a row of digits to this base
_NUMERIC_LIMIT: Final = _GROUP**4  # before the decimal point
_IP_FAMILY: Final = {4: 2, 6: 3}  # Postgres's own numbers


def binary_row_start(fields: int) -> bytes:
    """What a row of so many fields begins with."""
    return fields.to_bytes(2, "big")


def binary_text(value: str | None) -> bytes:
    """A text, or null."""
    if value is None:
        return BINARY_NULL
    encoded = value.encode()
    return _LENGTH(len(encoded)) + encoded


def binary_texts(column: Iterable[str | None]) -> list[bytes]:
    """Each text of a column, or null."""
    return [
        BINARY_NULL if each is None else _LENGTH(len(encoded := each.encode())) + encoded for each in column
    ]


def binary_int(value: int | None) -> bytes:
    """An int, or null."""
    return BINARY_NULL if value is None else _INT(4, value)


def binary_bigint(value: int | None) -> bytes:
    """A bigint, or null."""
    return BINARY_NULL if value is None else _WHOLE(8, value)


def binary_bool(value: bool) -> bytes:  # noqa: FBT001 (a value, not a switch)
    """A boolean."""
    return _LENGTH(1) + bytes((value,))


def binary_date(value: date) -> bytes:
    """A date."""
    return _LENGTH(4) + day_number(value).to_bytes(4, "big", signed=True)


def binary_instant(value: datetime | None) -> bytes:
    """A timestamptz, or null."""
    return BINARY_NULL if value is None else _WHOLE(8, microseconds(value))


def binary_instants(column: Sequence[datetime | None]) -> list[bytes]:
    """Each timestamptz of a column, or null."""
    if None not in column:
        return list(map(_WHOLE, repeat(8), microseconds_each(cast("Sequence[datetime]", column))))
    return [binary_instant(each) for each in column]


@lru_cache(maxsize=65_536)
def binary_address(value: Address | None) -> bytes:
    """An inet that is one host, or null."""
    if value is None:
        return BINARY_NULL
    host = parsed(value)
    packed = host.packed
    inet = bytes((_IP_FAMILY[host.version], host.max_prefixlen, 0, len(packed))) + packed
    return _LENGTH(len(inet)) + inet


@lru_cache(maxsize=65_536)
def binary_numeric(value: Decimal) -> bytes:
    """A numeric of six decimals without its length, which is always `binary_numeric_length`.

    Raises:
        ValueError: it is negative, or has more than 16 digits before the decimal point.
    """
    scaled = int(value * _SECOND_MICROSECONDS)
    whole, fraction = divmod(scaled, _SECOND_MICROSECONDS)
    if not 0 <= whole < _NUMERIC_LIMIT:
        raise ValueError(f"{value} is out of range")
    high, low = divmod(whole, _GROUP * _GROUP)
    groups = (*divmod(high, _GROUP), *divmod(low, _GROUP), fraction // 100, fraction % 100 * 100)
    return _NUMERIC(6, 3, 0, 6, *groups)


def day_number(day: date) -> int:
    """A date as Postgres counts it: days since 2000-01-01."""
    return day.toordinal() - _FIRST_DAY


def microseconds(instant: datetime) -> int:
    """An aware instant as Postgres counts it: microseconds since 2000-01-01 UTC; exact."""
    since = instant - EPOCH
    return since.days * _DAY_MICROSECONDS + since.seconds * _SECOND_MICROSECONDS + since.microseconds


def microseconds_each(instants: Iterable[datetime]) -> list[int]:
    """`microseconds` of each instant."""
    return [
        since.days * _DAY_MICROSECONDS + since.seconds * _SECOND_MICROSECONDS + since.microseconds
        for since in [each - EPOCH for each in instants]
    ]

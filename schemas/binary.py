"""How a row is written in Postgres's binary COPY format: each field as its length and its bytes. Pure.

For the ledger, where reading text would cost the database more than all else (deploy/decisions/0013).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from struct import Struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from schemas.network import Address, parsed

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)  # what Postgres counts dates and instants from
Integers = NDArray[np.int64]
NEVER: Final = -(2**63)  # in a column of numbers: there is none
_FIRST_DAY: Final = EPOCH.date().toordinal()
DAY_MICROSECONDS: Final = 86_400_000_000
_SECOND_MICROSECONDS: Final = 1_000_000

BINARY_NULL: Final = b"\xff\xff\xff\xff"
_LENGTH: Final = Struct(">i").pack
_LENGTHS: Final = [_LENGTH(length) for length in range(256)]
_INT: Final = Struct(">ii").pack
_WHOLE: Final = Struct(">iq").pack
_GROUP: Final = 10_000  # a numeric is a row of digits to this base
_NUMERIC: Final = [
    *(("digits", ">i2"), ("weight", ">i2"), ("sign", ">u2"), ("scale", ">i2")),
    ("groups", ">i2", (6,)),
]
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


def binary_texts(column: Sequence[str | None]) -> list[bytes]:
    """Each text of a column, or null."""
    try:
        return [
            BINARY_NULL if each is None else _LENGTHS[len(encoded := each.encode())] + encoded
            for each in column
        ]
    except IndexError:  # a text longer than most
        return list(map(binary_text, column))


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


def binary_rows(columns: Sequence[NDArray[Any]]) -> list[bytes]:
    """Rows of fields of a fixed width, one behind the other: whole numbers, truth values, or bytes as they are.

    `NEVER`, in a column of 64-bit numbers, is null. Rows that have the same nulls are written together.
    """
    nulls = np.zeros(len(columns[0]), dtype=np.int64)
    for place, column in enumerate(columns):
        if column.dtype == np.int64:
            nulls |= (column == NEVER).astype(np.int64) << place
    kinds = set(nulls.tolist())
    if len(kinds) == 1:
        return as_bytes(_with_lengths(columns, *kinds))
    rows = np.empty(len(nulls), dtype=object)
    for kind in kinds:
        alike = np.flatnonzero(nulls == kind)
        rows[alike] = as_void(_with_lengths([column[alike] for column in columns], kind)).astype(object)
    return rows.tolist()


def _with_lengths(columns: Sequence[NDArray[Any]], nulls: int) -> NDArray[Any]:
    """Rows that have the same nulls, told by the bits of `nulls`."""
    fields = np.empty(len(columns[0]), dtype=_layout(tuple([column.dtype for column in columns]), nulls))
    for place, column in enumerate(columns):
        if nulls >> place & 1:
            fields[f"length{place}"] = -1
        else:
            fields[f"length{place}"] = column.dtype.itemsize
            fields[f"field{place}"] = column
    return fields


@lru_cache(maxsize=1024)
def _layout(types: tuple[np.dtype[Any], ...], nulls: int) -> np.dtype[Any]:
    fields: list[tuple[str, Any]] = []
    for place, each in enumerate(types):
        fields.append((f"length{place}", ">i4"))
        if not nulls >> place & 1:
            fields.append((f"field{place}", "u1" if each == np.bool_ else each.newbyteorder(">")))
    return np.dtype(fields)


def as_bytes(rows: NDArray[Any]) -> list[bytes]:
    """Each row of some fields of fixed width, as it lies in memory."""
    lines: list[bytes] = as_void(rows).tolist()
    return lines


def as_void(rows: NDArray[Any]) -> NDArray[np.void]:
    """`as_bytes` that are no objects yet."""
    width = rows.nbytes // len(rows) if len(rows) else 1
    return np.frombuffer(rows.tobytes(), dtype=f"V{width}")


def binary_address(value: Address | None) -> bytes:
    """An inet that is one host, or null."""
    if value is None:
        return BINARY_NULL
    host = parsed(value)
    packed = host.packed
    inet = bytes((_IP_FAMILY[host.version], host.max_prefixlen, 0, len(packed))) + packed
    return _LENGTH(len(inet)) + inet


def binary_numerics(millionths: NDArray[Any]) -> NDArray[Any]:
    """Each amount, a whole number of millionths, as a numeric of six decimals: a field for `binary_rows`.

    None may be negative. Of 10**16 or more the database refuses them.
    """
    fields = np.empty(len(millionths), dtype=_NUMERIC)
    fields["digits"], fields["weight"], fields["sign"], fields["scale"] = 6, 3, 0, 6
    rest = millionths // 100
    fields["groups"][:, 5] = millionths % 100 * 100
    for group in range(4, -1, -1):
        fields["groups"][:, group] = rest % _GROUP
        rest = rest // _GROUP
    return fields


def day_number(day: date) -> int:
    """A date as Postgres counts it: days since 2000-01-01."""
    return day.toordinal() - _FIRST_DAY


def day_of(number: int) -> date:
    """The date that `day_number` made a number of."""
    return date.fromordinal(number + _FIRST_DAY)


def microseconds(instant: datetime) -> int:
    """An aware instant as Postgres counts it: microseconds since 2000-01-01 UTC; exact."""
    since = instant - EPOCH
    return since.days * DAY_MICROSECONDS + since.seconds * _SECOND_MICROSECONDS + since.microseconds


def microseconds_each(instants: Iterable[datetime | None]) -> Integers:
    """`microseconds` of each instant; `NEVER` where there is none."""
    return numbers([None if each is None else microseconds(each) for each in instants])


def numbers(column: Iterable[int | None]) -> Integers:
    """Whole numbers by column; `NEVER` where there is none."""
    return np.array([NEVER if each is None else each for each in column], dtype=np.int64)


def number_of(value: int) -> int | None:
    """The number that `numbers` made one of a column of."""
    return None if value == NEVER else value


def instant_of(since_epoch: int) -> datetime:
    """The instant that `microseconds` made a number of."""
    return EPOCH + timedelta(microseconds=since_epoch)

"""The quick way to read call records that are written plainly, as nearly all are: one alone, or a batch by column.

The schema is `CallRecordOnWire`, and it alone refuses. What this reads, the schema reads as the same record, at a
fraction of the cost; whatever is not plain (an escape, a letter outside ASCII, a wrong type or length) is left to the schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, cast

import msgspec
import numpy as np
from msgspec import Meta

from schemas.amounts import is_plain_amount, read_millionths
from schemas.binary import EPOCH, NEVER, Integers, microseconds_each
from schemas.columns import CallColumns
from schemas.memo import Memo
from schemas.network import Address, address
from schemas.records import (
    CallRecord,
    amount,
    call_id_length_max,
    header_length_max,
    id_length_max,
    number_length_max,
    seconds,
    service_length_max,
    utc_time,
)

_Word = Annotated[str, Meta(min_length=1, max_length=id_length_max)]
_Number = Annotated[str, Meta(min_length=1, max_length=number_length_max)]
_currency_length: Final = 3


class _PlainCall(msgspec.Struct, gc=False):
    """The fields of `CallRecordOnWire` as JSON has them; what a text means is not looked at yet."""

    id: _Word
    switch: _Word
    service: Annotated[str, Meta(min_length=1, max_length=service_length_max)]
    direction: Literal["inbound", "outbound"]
    started_at: str
    call_id: Annotated[str, Meta(min_length=1, max_length=call_id_length_max)] | None = None
    from_number: _Number | None = None
    to_number: _Number | None = None
    source_ip: str | None = None
    x_tenant: Annotated[str, Meta(max_length=header_length_max)] | None = None
    answered_at: str | None = None
    ended_at: str | None = None
    answered_seconds: str | int | None = None
    billed_seconds: Annotated[int, Meta(ge=-(2**31), lt=2**31)] | None = None
    cost: str | None = None
    currency: Annotated[str, Meta(min_length=_currency_length, max_length=_currency_length)] | None = None


_BACKSLASH: Final = 0x5C
_DEL: Final = 0x7F
_NEWLINE: Final = b"\n"
_DECODER: Final = msgspec.json.Decoder(_PlainCall)
_FIRST_DAY: Final = np.datetime64(EPOCH.date(), "D")
_decimals_max: Final = 6


def read_plainly(value: bytes) -> CallRecord | None:
    """The record of a message that is written plainly; None where the schema must be asked."""
    if not is_plain(value):
        return None
    try:
        return _record(_DECODER.decode(value))
    except ValueError:  # msgspec's own errors are of that kind, too
        return None


def complete_calls(values: Sequence[bytes | None]) -> tuple[Sequence[int], CallColumns]:
    """Those of some messages that hold a complete call, written plainly: their places, and the calls by column.

    Complete: it ended, and came with its seconds and its cost.
    Each of them is as `read_plainly` reads it.
    """
    calls = _read_together(values)
    if calls is not None:
        try:
            return range(len(calls)), _columns(calls)
        except (TypeError, ValueError):
            found = list(enumerate(calls))
    else:
        read = [_read_alone(value) for value in values]
        found = [(place, each) for place, each in enumerate(read) if each is not None]
    found = [(place, each) for place, each in found if _is_complete(each)]
    try:
        columns = _columns([each for _, each in found])
    except ValueError:
        found = [(place, each) for place, each in found if _means_something(each)]
        columns = _columns([each for _, each in found])
    return [place for place, _ in found], columns


def is_plain(value: bytes) -> bool:
    """Whether no text of a message can hold anything but printed ASCII.

    JSON lets control characters into a text only behind a backslash, all but DEL.
    """
    return value.isascii() and _BACKSLASH not in value and _DEL not in value


def _read_together(values: Sequence[bytes | None]) -> Sequence[_PlainCall] | None:
    """All messages at once, each a line; None where one of them is not plain, or no line of its own."""
    if None in values:
        return None
    lines = _NEWLINE.join(cast("Sequence[bytes]", values))
    if not is_plain(lines) or _count(lines, _NEWLINE) != len(values) - 1:
        return None
    try:
        calls = _DECODER.decode_lines(lines)
    except (ValueError, RecursionError):
        return None
    return calls if len(calls) == len(values) else None


def _count(text: bytes, character: bytes) -> int:
    """`bytes.count`, a few times as quick for one character among many others."""
    return int(np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == ord(character)))


def _read_alone(value: bytes | None) -> _PlainCall | None:
    try:
        return _DECODER.decode(value) if value is not None and is_plain(value) else None
    except (ValueError, RecursionError):
        return None


def _is_complete(call: _PlainCall) -> bool:
    return (
        call.ended_at is not None
        and call.answered_seconds is not None
        and call.billed_seconds is not None
        and call.cost is not None
        and call.currency is not None
    )


def _means_something(call: _PlainCall) -> bool:
    """Whether `_columns` takes a complete call."""
    try:
        _record(call)
    except ValueError:
        return False
    return is_plain_amount(str(call.answered_seconds)) and is_plain_amount(str(call.cost))


def _columns(calls: Sequence[_PlainCall]) -> CallColumns:
    """Complete calls by column.

    Raises:
        TypeError: one of them is not complete.
        ValueError: one of them is no record, or an amount is not written plainly.
    """
    rows = [msgspec.structs.astuple(each) for each in calls]
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(
        _PlainCall.__struct_fields__
    )
    ids, switches, services, directions, started, call_ids, from_numbers, to_numbers = columns[:8]
    sources, names, answered, ended, answered_seconds, billed_seconds, costs, currencies = columns[8:]
    if currencies and not _are_codes("".join(currencies)):
        raise ValueError("a currency is no code")
    instants = _instants(
        [
            *started,
            *[end if each is None else each for each, end in zip(answered, ended, strict=True)],
            *ended,
        ]
    )
    started_each, answered_each, ended_each = instants.reshape(3, -1)
    answered_each[[each is None for each in answered]] = NEVER
    return CallColumns(
        ids,
        switches,
        services,
        directions,
        call_ids,
        from_numbers,
        to_numbers,
        _ADDRESSES.each(sources),
        names,
        started_each,
        answered_each,
        ended_each,
        read_millionths(_texts(answered_seconds)),
        np.array(billed_seconds, dtype=np.int64),
        read_millionths(costs),
        [b""] * len(calls),
        currencies,
    )


def _texts(amounts: Sequence[str | int | None]) -> Sequence[str]:
    """Amounts as text: a whole number may stand in JSON as one.

    Raises:
        TypeError: one of them is missing.
    """
    if set(map(type, amounts)) <= {str}:
        return cast("Sequence[str]", amounts)
    if None in amounts:
        raise TypeError
    return list(map(str, amounts))


def _are_codes(texts: str) -> bool:
    """Whether currencies, one behind the other, are written as codes; each is as long as one."""
    return texts.isascii() and texts.isalpha() and texts.isupper()


def _instants(texts: Sequence[str]) -> Integers:
    """Instants as microseconds since `EPOCH`: all at once where they are written alike.

    Raises:
        ValueError: one of them is no instant.
    """
    alike = _instants_alike(texts)
    return microseconds_each(map(instant_in, texts)) if alike is None else alike


def _instants_alike(texts: Sequence[str]) -> Integers | None:
    """`2026-10-31T23:59:58.120Z`, each with as many decimals, or none; None where one is written otherwise."""
    length = len(texts[0]) if texts else 0
    decimals = max(0, length - len("2026-10-31T23:59:58.Z"))
    form = "dddd-dd-ddTdd:dd:dd" + ("." if decimals else "") + "d" * decimals + "Z"
    if length != len(form) or decimals > _decimals_max or set(map(len, texts)) != {length}:
        return None
    characters = np.frombuffer("".join(texts).encode(), dtype=np.uint8).reshape(-1, length).T
    digits = np.ascontiguousarray(characters) - np.uint8(ord("0"))  # what lies below 0 comes out far above 9
    wanted = np.frombuffer(form.encode(), dtype=np.uint8)
    is_digit = wanted == ord("d")
    if (digits[is_digit] > 9).any() or (characters[~is_digit] != wanted[~is_digit, np.newaxis]).any():
        return None

    def number(first: int, end: int) -> Integers:
        value: Integers = digits[first].astype(np.int64)
        for place in range(first + 1, end):
            value *= 10
            value += digits[place]
        return value

    year, month, day, hour, minute, second = [
        number(*field) for field in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))
    ]
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    first_day = months.astype("datetime64[D]")
    days = ((months + 1).astype("datetime64[D]") - first_day).astype(np.int64)
    told = (year > 0) & (month > 0) & (month <= 12) & (day > 0) & (day <= days)
    if not np.all(told & (hour < 24) & (minute < 60) & (second < 60)):
        return None
    seconds_of_day = (hour * 60 + minute) * 60 + second
    fraction = number(20, 20 + decimals) * 10 ** (6 - decimals) if decimals else 0
    since_day = (first_day - _FIRST_DAY).astype(np.int64) + day - 1
    instants: Integers = (since_day * 86_400 + seconds_of_day) * 1_000_000 + fraction
    return instants


def _record(plain: _PlainCall) -> CallRecord:
    """A call as billing carries it.

    Raises:
        ValueError: a text does not mean what it must.
    """
    return CallRecord(
        plain.id,
        plain.switch,
        plain.service,
        plain.direction,
        instant_in(plain.started_at),
        plain.call_id,
        plain.from_number,
        plain.to_number,
        _ADDRESSES[plain.source_ip],
        plain.x_tenant,
        None if plain.answered_at is None else instant_in(plain.answered_at),
        None if plain.ended_at is None else instant_in(plain.ended_at),
        None if plain.answered_seconds is None else seconds(plain.answered_seconds),
        plain.billed_seconds,
        None if plain.cost is None else amount(plain.cost),
        None if plain.currency is None else _code(plain.currency),
    )


def instant_in(text: str) -> datetime:
    """The instant that a text names.

    Raises:
        ValueError: it names none.
    """
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo is UTC else utc_time(text)


def _code(text: str) -> str:
    if not _are_codes(text):
        raise ValueError("no currency code")
    return text


def _address(text: str | None) -> Address | None:
    return None if text is None else address(text)


# Few addresses differ, so most are remembered.
_ADDRESSES: Final = Memo(_address)

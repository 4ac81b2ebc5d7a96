"""The quick way to read a call record that is written plainly, as nearly all are.

The schema is `CallRecordOnWire`, and it alone refuses. What this reads, the schema reads as the same record, at a
quarter of the cost; whatever is not plain (an escape, a letter outside ASCII, a wrong type or length) is left to the schema.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.network import address
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
_DECODER: Final = msgspec.json.Decoder(_PlainCall)


def read_plainly(value: bytes) -> CallRecord | None:
    """The record of a message that is written plainly; None where the schema must be asked.

    JSON lets control characters into a text only behind a backslash, all but DEL.
    """
    if not value.isascii() or _BACKSLASH in value or _DEL in value:
        return None
    try:
        plain = _DECODER.decode(value)
        return CallRecord(
            plain.id,
            plain.switch,
            plain.service,
            plain.direction,
            _instant(plain.started_at),
            plain.call_id,
            plain.from_number,
            plain.to_number,
            None if plain.source_ip is None else address(plain.source_ip),
            plain.x_tenant,
            None if plain.answered_at is None else _instant(plain.answered_at),
            None if plain.ended_at is None else _instant(plain.ended_at),
            None if plain.answered_seconds is None else _seconds(plain.answered_seconds),
            plain.billed_seconds,
            None if plain.cost is None else _amount(plain.cost),
            None if plain.currency is None else _code(plain.currency),
        )
    except ValueError:  # msgspec's own errors are of that kind, too
        return None


# Few durations, amounts and currencies differ, so most are remembered.
_seconds: Final = lru_cache(maxsize=65_536)(seconds)
_amount: Final = lru_cache(maxsize=65_536)(amount)


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo is UTC else utc_time(text)


@lru_cache(maxsize=1024)
def _code(text: str) -> str:
    if not (text.isascii() and text.isalpha() and text.isupper()):
        raise ValueError("no currency code")
    return text

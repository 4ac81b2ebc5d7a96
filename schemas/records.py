"""What a switch reports: call records and SIP events in the canonical wire form.

Parsed once, at the edge, into frozen types; everything behind trusts them. Unknown extra fields are accepted.
Money is a string on the wire: a JSON number for money has already lost its cents.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
)

from schemas import network

id_length_max: Final = 256
call_id_length_max: Final = 512
header_length_max: Final = 1024

_AMOUNT: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")
_SECONDS: Final = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,6})?")


def _utc(value: object) -> datetime:
    """ISO 8601 with `Z` or an offset, or an aware datetime; a bare number could be seconds or milliseconds."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("a time must be ISO 8601 with Z or an offset, such as 2026-10-31T23:59:58.120Z")
    return value if value.tzinfo is UTC else value.astimezone(UTC)


def _amount(value: object) -> Decimal:
    if not isinstance(value, str):
        raise ValueError('money must be a string such as "0.0255", not a number')  # noqa: TRY004 (pydantic's protocol)
    return _decimal(value, _AMOUNT, 'money must be plain digits with at most 12 decimals, such as "0.0255"')


def _seconds(value: object) -> Decimal:
    """JSON numbers and strings alike; a float is taken by its shortest text, so 1.1 is 1.1."""
    return _decimal(
        str(value), _SECONDS, "seconds must be plain digits with at most 6 decimals, such as 180.000"
    )


@lru_cache(maxsize=65_536)
def _decimal(text: str, shape: re.Pattern[str], otherwise: str) -> Decimal:
    """Read digits; few amounts and durations differ, so most are remembered."""
    if shape.fullmatch(text) is None:
        raise ValueError(otherwise)
    return Decimal(text)


def _address(value: object) -> network.Address:
    if not isinstance(value, str):
        raise ValueError("an address must be a string")  # noqa: TRY004 (pydantic's protocol)
    try:
        return network.address(value)
    except ValueError:
        raise ValueError("this is no IPv4 or IPv6 address") from None  # the value may tell who it is


UtcTime = Annotated[datetime, PlainValidator(_utc, json_schema_input_type=AwareDatetime)]
Amount = Annotated[Decimal, PlainValidator(_amount, json_schema_input_type=str)]
# Text that can be stored and hashed: at least one character, no control characters.
Word = Annotated[
    str, StringConstraints(min_length=1, max_length=id_length_max, pattern=r"^[^\x00-\x1f\x7f]+$")
]
CallId = Annotated[
    str, StringConstraints(min_length=1, max_length=call_id_length_max, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Dialled = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Seconds = Annotated[Decimal, PlainValidator(_seconds, json_schema_input_type=str | int | float)]
IpAddress = Annotated[Any, PlainValidator(_address, json_schema_input_type=str)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class CallRecord(BaseModel):
    """One leg of one call, or one event of another service, as the switch reported it.

    `started_at` decides the assignment and the month (A1). `answered_seconds` runs from answer to end, never from
    ringing; `billed_seconds` is after increments; `cost` is what the carrier charges the account, in `currency`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    id: Word
    switch: Word
    service: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
    direction: Literal["inbound", "outbound"]
    started_at: UtcTime
    call_id: CallId | None = None
    from_number: Dialled | None = None
    to_number: Dialled | None = None
    source_ip: IpAddress | None = None
    x_tenant: Annotated[str, StringConstraints(max_length=header_length_max)] | None = None
    answered_at: UtcTime | None = None
    ended_at: UtcTime | None = None
    answered_seconds: Seconds | None = None
    billed_seconds: Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)] | None = None
    cost: Amount | None = None
    currency: Currency | None = None


class SipEvent(BaseModel):
    """An initial INVITE as seen on the wire: whose packet it was and which tenant it named (A10).

    `source_ip` is the packet's source, never Via or Contact. `x_tenant` is None where no such header was sent.
    """

    model_config = ConfigDict(frozen=True)

    switch: Word
    observed_at: UtcTime
    source_ip: IpAddress
    call_id: CallId
    cseq: int
    x_tenant: str | None


class SipEnvelope(BaseModel):
    """A message on `sip.raw`: the fields of a SIP message, or its text in `raw` from which the rest is read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    switch: Word
    observed_at: UtcTime
    source_ip: IpAddress
    source_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    call_id: CallId | None = None
    method: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    cseq: Annotated[int, Field(ge=0, lt=2**32)] | Annotated[str, StringConstraints(max_length=64)] | None = (
        None
    )
    from_tag: Annotated[str, StringConstraints(max_length=512)] | None = None
    to_tag: Annotated[str, StringConstraints(max_length=512)] | None = None
    headers: dict[str, str | list[str]] = Field(default_factory=dict)
    raw: str | None = None

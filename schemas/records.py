"""What a switch reports: call records and SIP events in the canonical wire form.

Parsed once, at the edge, into frozen types; everything behind trusts them. Unknown extra fields are accepted.
Money is a string on the wire: a JSON number for money has already lost its cents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Final, Literal

import msgspec
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)

from schemas import network

id_length_max: Final = 256
call_id_length_max: Final = 512
header_length_max: Final = 1024
service_length_max: Final = 64
number_length_max: Final = 64
method_length_max: Final = 64
tag_length_max: Final = 512

_PRINTED: Final = r"^[^\x00-\x1f\x7f]+$"  # what can be stored and hashed: text without control characters
_AMOUNT: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")
_SECONDS: Final = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,6})?")


def utc_time(value: object) -> datetime:
    """ISO 8601 with `Z` or an offset, or an aware datetime; a bare number could be seconds or milliseconds."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("a time must be ISO 8601 with Z or an offset, such as 2026-10-31T23:59:58.120Z")
    if value.tzinfo is UTC:
        return value
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("this time is out of range in UTC") from None


def amount(value: object) -> Decimal:
    """Money as text; any other JSON value has lost its cents, or may have."""
    if not isinstance(value, str):
        raise ValueError('money must be a string such as "0.0255", not a number')  # noqa: TRY004 (pydantic's protocol)
    if _AMOUNT.fullmatch(value) is None:
        raise ValueError('money must be plain digits with at most 12 decimals, such as "0.0255"')
    return Decimal(value)


def seconds(value: object) -> Decimal:
    """JSON numbers and strings alike; a float is taken by its shortest text, so 1.1 is 1.1."""
    text = str(value)
    if _SECONDS.fullmatch(text) is None:
        raise ValueError("seconds must be plain digits with at most 6 decimals, such as 180.000")
    return Decimal(text)


def ip_address(value: object) -> network.Address:
    """An address, normalised (A11)."""
    if not isinstance(value, str):
        raise ValueError("an address must be a string")  # noqa: TRY004 (pydantic's protocol)
    try:
        return network.address(value)
    except ValueError:
        raise ValueError("this is no IPv4 or IPv6 address") from None  # the value may tell who it is


# What the JSON Schema says of values that only a function can judge.
_AmountOnWire = Annotated[str, Field(pattern=f"^{_AMOUNT.pattern}$")]
_SecondsOnWire = Annotated[str, Field(pattern=f"^{_SECONDS.pattern}$")]
_AddressOnWire = Annotated[
    str, WithJsonSchema({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]})
]
UtcTime = Annotated[datetime, PlainValidator(utc_time, json_schema_input_type=AwareDatetime)]
Amount = Annotated[Decimal, PlainValidator(amount, json_schema_input_type=_AmountOnWire)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=id_length_max, pattern=_PRINTED)]
CallId = Annotated[str, StringConstraints(min_length=1, max_length=call_id_length_max, pattern=_PRINTED)]
Dialled = Annotated[str, StringConstraints(min_length=1, max_length=number_length_max, pattern=_PRINTED)]
Seconds = Annotated[Decimal, PlainValidator(seconds, json_schema_input_type=_SecondsOnWire | int | float)]
IpAddress = Annotated[str, PlainValidator(ip_address, json_schema_input_type=_AddressOnWire)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class CallRecordOnWire(BaseModel):
    """A message of `calls.raw`: the one schema of a call record, which says what is read and what is refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    id: Word
    switch: Word
    service: Annotated[str, StringConstraints(min_length=1, max_length=service_length_max, pattern=_PRINTED)]
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


class CallRecord(msgspec.Struct, frozen=True, gc=False):
    """One leg of one call, or one event of another service, as the switch reported it; made by `call_record`.

    `started_at` decides the assignment and the month (A1). `answered_seconds` runs from answer to end, never from
    ringing; `billed_seconds` is after increments; `cost` is what the carrier charges the account, in `currency`.
    """

    id: str
    switch: str
    service: str
    direction: Literal["inbound", "outbound"]
    started_at: datetime
    call_id: str | None = None
    from_number: str | None = None
    to_number: str | None = None
    source_ip: network.Address | None = None
    x_tenant: str | None = None
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    answered_seconds: Decimal | None = None
    billed_seconds: int | None = None
    cost: Decimal | None = None
    currency: str | None = None


def call_record(fields: Mapping[str, object]) -> CallRecord:
    """A call record from fields by the names of `CallRecordOnWire`, with values as JSON has them; others are ignored.

    Raises:
        ValidationError: a field is missing or not what the schema says.
    """
    return as_call_record(CallRecordOnWire.model_validate(fields))


def as_call_record(read: CallRecordOnWire) -> CallRecord:
    """A message as billing carries it."""
    return CallRecord(*[getattr(read, name) for name in CallRecord.__struct_fields__])


class SipEvent(msgspec.Struct, frozen=True, gc=False):
    """An initial INVITE as seen on the wire: whose packet it was and which tenant it named (A10).

    `source_ip` is the packet's source, never Via or Contact. `x_tenant` is None where no such header was sent.
    """

    switch: str
    observed_at: datetime
    source_ip: network.Address
    call_id: str
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
    method: Annotated[str, StringConstraints(min_length=1, max_length=method_length_max)] | None = None
    cseq: Annotated[int, Field(ge=0, lt=2**32)] | Annotated[str, StringConstraints(max_length=64)] | None = (
        None
    )
    from_tag: Annotated[str, StringConstraints(max_length=tag_length_max)] | None = None
    to_tag: Annotated[str, StringConstraints(max_length=tag_length_max)] | None = None
    headers: dict[str, str | list[str]] = Field(default_factory=dict)
    raw: str | None = None

"""What every dialect reads with: texts, JSON, ids, numbers, addresses, checked by the canonical form's rules.

Text that does not decide a bill and cannot be kept (a caller ID with control characters) is left out; text that does
decide (the called number, a Call-ID) makes the record unreadable. What repeats from call to call is remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Final, TypeVar
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from schemas import network
from schemas.decoded import Decoded, Direction, Ignored, Rejected
from schemas.formats.dialect import Decoder
from schemas.identity import fact_id
from schemas.numbers import number_in
from schemas.records import CallRecord, header_length_max, id_length_max, number_length_max

UNREADABLE: Final = "unreadable"
UNDIRECTED: Final = "undirected"
AMBIGUOUS_TIME: Final = "ambiguous_time"
TOMBSTONE: Final = Ignored("tombstone")
QUICKLY_UNREADABLE: Final = (
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
)  # no JSON, or not in the usual types
_NULLS: Final = frozenset({"", "<null>", "(null)"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
remembered_length_max: Final = 2_048  # characters; more than any text has that is kept, encoded as it may be

Message = TypeVar("Message")
Brief = Annotated[str, Meta(max_length=remembered_length_max)]


class UnreadableError(ValueError):
    """A field that is missing or wrong; its text names the field, and not the value, which may tell who it is."""


def text(value: object) -> str | None:
    """A field's text, trimmed; None where it is absent or says so (`""`, `"<null>"`). Numbers are texts, too."""
    if value.__class__ is str:
        said = value.strip()
        return None if said in _NULLS else said
    if value is None or value.__class__ is bool or not isinstance(value, int | float):
        return None
    return str(value)


def brief(value: object) -> str | None:
    """A field's text, cut where it is longer than any that is kept: what is remembered must not fill the memory."""
    said = text(value)
    return None if said is None else said[:remembered_length_max]


def unquoted(value: str) -> str:
    """A URL-encoded text as it was; `@` is what is mostly encoded in one."""
    if "%" not in value:
        return value
    plain = value.replace("%40", "@")
    return unquote(value) if "%" in plain else plain


def parsed(decoder: msgspec.json.Decoder[Message], value: bytes) -> Message:
    """A JSON message in the fields that a dialect reads; bytes that are no UTF-8 become U+FFFD.

    Raises:
        UnreadableError: no JSON, or not the shape.
    """
    try:
        return decoder.decode(value)
    except QUICKLY_UNREADABLE as error:
        try:
            repaired = value.decode("utf-8", "replace").encode()
            if repaired == value:
                raise UnreadableError(_shape(error))
            return decoder.decode(repaired)
        except (msgspec.DecodeError, RecursionError):
            raise UnreadableError(_shape(error)) from None


def _shape(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else f"not the expected JSON: {error}"


def record_id(*parts: str) -> str:
    """A record's id from what identifies it at its switch; hashed where it would be too long to keep."""
    joined = ";".join(parts)
    return joined if len(joined) <= id_length_max else fact_id(*parts).hex


@lru_cache(maxsize=65_536)
def source_address(said: str | None) -> network.Address | None:
    """The packet's source address; None where it is not said.

    Raises:
        UnreadableError: it is no address.
    """
    value = text(said)
    try:
        return None if value is None else network.address(value)
    except ValueError:
        raise UnreadableError("the source address is no IPv4 or IPv6 address") from None


@lru_cache(maxsize=65_536)
def called_number(said: str | None) -> str | None:
    """The number called; None where it is not said.

    Raises:
        UnreadableError: it cannot be kept.
    """
    number = number_in(said or "")
    return None if number is None else kept("to_number", number, number_length_max)


@lru_cache(maxsize=65_536)
def calling_number(said: str | None) -> str | None:
    """The number that calls; None where it is not said, or cannot be kept."""
    try:
        number = number_in(said or "")
        return None if number is None else kept("from_number", number, number_length_max)
    except UnreadableError:
        return None


@lru_cache(maxsize=65_536)
def tenant_header(said: str | None) -> str | None:
    """An `X-Tenant` value that can be kept: one too long or with control characters names nobody, and still is there."""
    value = text(said)
    if value is None or (len(value) <= header_length_max and value.isprintable()):
        return value
    return _CONTROL.sub("\ufffd", value[:header_length_max])


@lru_cache(maxsize=1024)
def switch_name(said: str | None) -> str | None:
    """A switch's name; None where it does not say one.

    Raises:
        UnreadableError: it cannot be kept.
    """
    name = text(said)
    return None if name is None else kept("switch", name, id_length_max)


def kept(name: str, value: str, length_max: int) -> str:
    """A text that decides, if it can be kept.

    Raises:
        UnreadableError: it is empty, too long, or has control characters.
    """
    if not 0 < len(value) <= length_max or not (value.isprintable() or _CONTROL.search(value) is None):
        raise UnreadableError(f"{name}: 1 to {length_max} characters, none of them a control character")
    return value


def directed(record: CallRecord, direction: Direction) -> CallRecord | Rejected:
    """A record with its direction, if it says what that direction needs (DESIGN section 5)."""
    if record.direction != direction:
        record = msgspec.structs.replace(record, direction=direction)
    if direction == "inbound":
        if record.to_number is None:
            return Rejected(UNREADABLE, "to_number: an inbound record needs the called number")
    elif record.source_ip is None and record.call_id is None:
        return Rejected(UNREADABLE, "source_ip: an outbound record needs source_ip or call_id")
    return record


def total(read: Callable[[bytes], Decoded]) -> Decoder:
    """A decoder that never raises on what a message says: a tombstone is ignored, what cannot be read is rejected."""

    def decode(value: bytes | None) -> Decoded:
        if value is None:
            return TOMBSTONE
        try:
            return read(value)
        except UnreadableError as error:
            return Rejected(UNREADABLE, str(error))

    return decode

"""The quick way to read a SIP event that is written plainly, as schemas/plain.py does call records.

The schema is `SipEnvelope`, and it alone refuses; a message in `raw` has line breaks in it, and so is left to the schema.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from schemas.network import Address, address
from schemas.plain import instant_in, is_plain
from schemas.records import call_id_length_max, id_length_max, method_length_max, tag_length_max

_Tag = Annotated[str, Meta(max_length=tag_length_max)] | None


class _PlainEvent(msgspec.Struct, gc=False):
    """The fields of `SipEnvelope` as JSON has them; what a text means is not looked at yet."""

    switch: Annotated[str, Meta(min_length=1, max_length=id_length_max)]
    observed_at: str
    source_ip: str
    source_port: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    call_id: Annotated[str, Meta(min_length=1, max_length=call_id_length_max)] | None = None
    method: Annotated[str, Meta(min_length=1, max_length=method_length_max)] | None = None
    cseq: Annotated[int, Meta(ge=0, lt=2**32)] | Annotated[str, Meta(max_length=64)] | None = None
    from_tag: _Tag = None
    to_tag: _Tag = None
    headers: dict[str, str | list[str]] = {}
    raw: str | None = None


class PlainEnvelope(msgspec.Struct, frozen=True, gc=False):
    """What is asked of a `SipEnvelope`, under the same names."""

    switch: str
    observed_at: datetime
    source_ip: Address
    call_id: str | None
    method: str | None
    cseq: int | str | None
    to_tag: str | None
    headers: dict[str, str | list[str]]
    raw: str | None


_DECODER: Final = msgspec.json.Decoder(_PlainEvent)


def read_event_plainly(value: bytes) -> PlainEnvelope | None:
    """The envelope of a message that is written plainly; None where the schema must be asked."""
    if not is_plain(value):
        return None
    try:
        plain = _DECODER.decode(value)
        return PlainEnvelope(
            plain.switch,
            instant_in(plain.observed_at),
            address(plain.source_ip),
            plain.call_id,
            plain.method,
            plain.cseq,
            plain.to_tag,
            plain.headers,
            plain.raw,
        )
    except (ValueError, RecursionError):  # msgspec's own errors are values' errors, too
        return None

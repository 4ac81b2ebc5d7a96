"""HEP captures as JSON (heplify, heplify-server): one object per captured packet, at every hop.

A message is seen two to four times on its way: each is kept as the event it is, and attribution chooses among them by
Call-ID and source address (A10), so a repeated capture changes nothing. Addresses of the carrier's own hops go into the
input's `edge_addresses`.

| billing | field | meaning |
|---|---|---|
| switch | the input's `switch`, else `NodeName`, else `hep-` and `NodeID` | the capture point |
| observed_at | `Tsec` and `Tmsec` | seconds, and microseconds within them (named for milliseconds) |
| source_ip | `SrcIP` | the packet's source |
| call_id, cseq, x_tenant, to_tag | `Payload` | the SIP message (schemas/sip_message.py) |

Ignored: packets that are no SIP (`ProtoType` is not 1), and what is no initial INVITE.
Source: HEP version 3 specification; the field names of heplify's JSON.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from schemas.decoded import Decoded, Ignored
from schemas.formats.building import UnreadableError, parsed, text, total
from schemas.formats.dialect import Decoder, Dialect, Format
from schemas.formats.sip_events import sip_event
from schemas.formats.times import TimeError, from_microseconds

_SIP: Final = 1
_microseconds_max: Final = 999_999


class _Packet(msgspec.Struct, gc=False):
    source: Any = msgspec.field(default=None, name="SrcIP")
    second: Any = msgspec.field(default=None, name="Tsec")
    microsecond: Any = msgspec.field(default=None, name="Tmsec")
    protocol: Any = msgspec.field(default=None, name="ProtoType")
    node: Any = msgspec.field(default=None, name="NodeID")
    node_name: Any = msgspec.field(default=None, name="NodeName")
    payload: Any = msgspec.field(default=None, name="Payload")


_PACKET: Final = msgspec.json.Decoder(_Packet)


def make(settings: Format) -> Decoder:
    """The decoder of one input."""

    def read(value: bytes) -> Decoded:
        packet = parsed(_PACKET, value)
        if packet.protocol != _SIP or packet.protocol is True:
            if packet.protocol.__class__ is not int:
                raise UnreadableError("ProtoType: missing")
            return Ignored("not_sip")
        if not isinstance(packet.payload, str):
            raise UnreadableError("Payload: missing")
        node = text(packet.node)
        switch = settings.switch or text(packet.node_name) or (node and f"hep-{node}")
        return sip_event(packet.payload, switch, _time(packet), text(packet.source))

    return total(read)


def _time(packet: _Packet) -> datetime | None:
    second, microsecond = packet.second, packet.microsecond
    if not isinstance(second, int) or not isinstance(microsecond, int):
        raise UnreadableError("Tsec or Tmsec: missing")
    if not 0 <= microsecond <= _microseconds_max or second < 0:
        raise UnreadableError("Tsec or Tmsec: out of range")
    try:
        return from_microseconds(second * 1_000_000 + microsecond)
    except TimeError as error:
        raise UnreadableError(f"Tsec: {error}") from None


DIALECT: Final = Dialect(kind="sip", name="hep", make=make, tells={}, takes=frozenset({"switch"}))

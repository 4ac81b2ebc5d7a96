"""FreeSWITCH's mod_json_cdr: one JSON document per leg, values URL-encoded or plain.

What the variables mean is in schemas/formats/freeswitch.py. Beside them:

| billing | document | meaning |
|---|---|---|
| switch | `switchname` | the core's name; the input's `switch` where it is missing |
| to_number | `callflow[-1].caller_profile.destination_number` | as the leg began; where no SIP variable says it |
| direction by `context` | `callflow[-1].caller_profile.context` | the dialplan context it came into, else `user_context` |
| direction by `channel`, `trunk` | `channel_name`, `sofia_profile_name` | |

Whether values are encoded (`encode-values`) is told by the colons of `start_stamp`.
Source: FreeSWITCH documentation of mod_json_cdr and of channel variables.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from schemas.decoded import Decoded
from schemas.formats.building import QUICKLY_UNREADABLE, Brief, brief, parsed, text, total, unquoted
from schemas.formats.dialect import Decoder, Dialect, Format
from schemas.formats.freeswitch import (
    IncomingLeg,
    Leg,
    is_encoded,
    not_billable,
    reported,
    reported_quickly,
    tenant_spelt,
)
from schemas.formats.reporting import Reporter


class _Profile(msgspec.Struct, gc=False):
    destination_number: Any = None
    context: Any = None
    originator: Any = None


class _Flow(msgspec.Struct, gc=False):
    caller_profile: _Profile | None = None


class _Document(msgspec.Struct, gc=False):
    variables: Leg
    switchname: Any = None
    callflow: list[_Flow] = []

    @property
    def origin(self) -> _Profile:
        """The profile with which the leg began; the list runs from the newest."""
        return (self.callflow[-1].caller_profile if self.callflow else None) or _Profile()


class _PlainProfile(msgspec.Struct, gc=False):
    context: Brief | None = None


class _PlainFlow(msgspec.Struct, gc=False):
    caller_profile: _PlainProfile


class _PlainDocument(msgspec.Struct, gc=False):
    """The quick way to read a document of a leg that came in."""

    variables: IncomingLeg
    callflow: Annotated[list[_PlainFlow], Meta(min_length=1)]
    switchname: Brief | None = None

    @property
    def origin(self) -> _PlainProfile:
        """The profile with which the leg began."""
        return self.callflow[-1].caller_profile


class _Headers(msgspec.Struct, gc=False):
    variables: dict[str, Any]


_DOCUMENT: Final = msgspec.json.Decoder(_Document)
_INCOMING: Final = msgspec.json.Decoder(_PlainDocument, strict=False)
_HEADERS: Final = msgspec.json.Decoder(_Headers)


def make(settings: Format) -> Decoder:
    """The decoder of one input."""
    reporter = Reporter(DIALECT, settings)

    def read(value: bytes) -> Decoded:
        try:
            plain = _INCOMING.decode(value)
        except QUICKLY_UNREADABLE:
            return _read(reporter, value)
        leg = plain.variables
        tenant = leg.x_tenant if leg.x_tenant is not None else _tenant(leg, value)
        decoded = reported_quickly(reporter, plain, leg, plain.switchname, tenant)
        return _read(reporter, value) if decoded is None else decoded

    return total(read)


def _read(reporter: Reporter, value: bytes) -> Decoded:
    document = parsed(_DOCUMENT, value)
    leg, origin = document.variables, document.origin
    if leg.originator is None:
        leg.originator = origin.originator and "callflow"
    ignored = not_billable(leg)
    if ignored is not None:
        return ignored
    called, tenant = origin.destination_number, _tenant(leg, value)
    return reported(reporter, document, leg, document.switchname, called, tenant)


def _tenant(leg: Leg | IncomingLeg, value: bytes) -> str | None:
    if leg.x_tenant is not None:
        return leg.x_tenant if isinstance(leg.x_tenant, str) else None
    spelt = tenant_spelt(value)
    return None if spelt is None else brief(parsed(_HEADERS, value).variables.get(spelt))


def _context(document: _Document | _PlainDocument) -> str | None:
    return text(document.origin.context) or text(document.variables.user_context)


def _channel(document: _Document | _PlainDocument) -> str | None:
    name = brief(document.variables.channel_name)
    return unquoted(name) if name is not None and is_encoded(document.variables) else name


def _profile(document: _Document | _PlainDocument) -> str | None:
    return text(document.variables.sofia_profile_name)


DIALECT: Final = Dialect(
    kind="calls",
    name="freeswitch_json_cdr",
    make=make,
    tells={"context": _context, "channel": _channel, "trunk": _profile, "source": None},
    needs=frozenset({"direction"}),
    takes=frozenset({"switch", "hops", "on_net"}),
)

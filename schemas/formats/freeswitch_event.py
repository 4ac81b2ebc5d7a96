"""FreeSWITCH's mod_event_kafka: events as flat JSON, of which one per leg is final.

Only `CHANNEL_HANGUP_COMPLETE` has the leg's whole story; every other event is interim and ignored. What the variables
mean is in schemas/formats/freeswitch.py; here each carries the prefix `variable_`. Beside them:

| billing | event | meaning |
|---|---|---|
| switch | `FreeSWITCH-Switchname`, else `FreeSWITCH-Hostname` | the core's name; else the input's `switch` |
| id | `Unique-ID` | the leg's uuid |
| A or B leg | `Call-Direction`; `Other-Type` is `originator` on a B leg | |
| to_number | `Caller-Destination-Number` | where no SIP variable says it |
| direction by `context` | `Caller-Context` | the dialplan context |
| direction by `channel`, `trunk` | `Channel-Name`, `variable_sofia_profile_name` | |

Values are plain; those of an event taken from the event socket as text are URL-encoded, told by `variable_start_stamp`.
Source: FreeSWITCH event list and channel variables documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from schemas.decoded import Decoded, Ignored
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

_FINAL_EVENT: Final = "CHANNEL_HANGUP_COMPLETE"
_NAMES: Final = {
    "event_name": "Event-Name",
    "hostname": "FreeSWITCH-Hostname",
    "switchname": "FreeSWITCH-Switchname",
    "called": "Caller-Destination-Number",
    "context": "Caller-Context",
}
_NAMES_ELSEWHERE: Final = {
    "unique_id": "Unique-ID",
    "call_direction": "Call-Direction",
    "other_type": "Other-Type",
}


def _decoder(leg: type[Leg | IncomingLeg], names: Mapping[str, str], kind: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401 (a type's form)
    """What reads an event: a leg's variables with their prefix, and headers of the event, of one kind."""
    own = [(field, kind, msgspec.field(default=None, name=name)) for field, name in names.items()]
    variables = [
        (each.name, each.type, msgspec.field(default=each.default, name=f"variable_{each.encode_name}"))
        for each in msgspec.structs.fields(leg)
    ]
    event = msgspec.defstruct("Event", own + variables, bases=(leg,), gc=False, kw_only=True)
    return msgspec.json.Decoder(event, strict=leg is Leg)


_EVENT: Final = _decoder(Leg, _NAMES | _NAMES_ELSEWHERE, Any)
_INCOMING: Final = _decoder(IncomingLeg, _NAMES, Brief | None)
_ANYTHING: Final = msgspec.json.Decoder(dict[str, Any])


def make(settings: Format) -> Decoder:
    """The decoder of one input."""
    reporter = Reporter(DIALECT, settings)

    def read(value: bytes) -> Decoded:
        try:
            leg = _INCOMING.decode(value)
        except QUICKLY_UNREADABLE:
            return _read(reporter, value)
        if leg.event_name != _FINAL_EVENT:
            return Ignored("interim_event")
        tenant = leg.x_tenant if leg.x_tenant is not None else _tenant(leg, value)
        decoded = reported_quickly(reporter, leg, leg, _switch(leg), tenant)
        return _read(reporter, value) if decoded is None else decoded

    return total(read)


def _read(reporter: Reporter, value: bytes) -> Decoded:
    event = parsed(_EVENT, value)
    if event.event_name != _FINAL_EVENT:
        return Ignored("interim_event")
    _complete(event)
    ignored = not_billable(event)
    if ignored is not None:
        return ignored
    return reported(reporter, event, event, _switch(event), event.called, _tenant(event, value))


def _switch(event: Any) -> str | None:  # noqa: ANN401 (see below)
    return text(event.switchname) or text(event.hostname)


def _complete(event: Any) -> None:  # noqa: ANN401 (a type made of `Leg`'s fields, which mypy cannot see)
    """Take from the event's own headers what its variables lack."""
    event.uuid = event.uuid or event.unique_id
    event.direction = event.direction or event.call_direction
    if event.last_bridge_role is None and text(event.other_type) == "originator":
        event.last_bridge_role = "originatee"  # the other leg made this one


def _tenant(leg: Leg | IncomingLeg, value: bytes) -> str | None:
    if leg.x_tenant is not None:
        return leg.x_tenant if isinstance(leg.x_tenant, str) else None
    spelt = tenant_spelt(value, b'"variable_')
    return None if spelt is None else brief(parsed(_ANYTHING, value).get(f"variable_{spelt}"))


def _context(event: Any) -> str | None:  # noqa: ANN401 (see above)
    return text(event.context) or text(event.user_context)


def _channel(event: Any) -> str | None:  # noqa: ANN401 (see above)
    name = brief(event.channel_name)
    return unquoted(name) if name is not None and is_encoded(event) else name


def _profile(event: Any) -> str | None:  # noqa: ANN401 (see above)
    return text(event.sofia_profile_name)


DIALECT: Final = Dialect(
    kind="calls",
    name="freeswitch_event",
    make=make,
    tells={"context": _context, "channel": _channel, "trunk": _profile, "source": None},
    needs=frozenset({"direction"}),
    takes=frozenset({"switch", "hops", "on_net"}),
)

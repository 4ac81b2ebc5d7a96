"""What a FreeSWITCH leg says, whichever module sent it: the channel variables that billing reads.

The leg that came in (A) is the call; legs that FreeSWITCH makes (B, one per routing attempt or fork) are parts of it
and are ignored. So one call gives one record, and the leg's uuid is its id: the same leg posted again, even with another
hangup cause, is a duplicate.

| billing | variable | meaning, by FreeSWITCH's channel variables reference |
|---|---|---|
| id | `uuid` | unique per leg |
| started_at, answered_at, ended_at | `start_uepoch`, `answer_uepoch`, `end_uepoch` | microseconds UTC; 0: never. Where absent `*_epoch`, seconds |
| call_id | `sip_call_id` | the leg's Call-ID |
| from_number | `sip_from_user` | user of From |
| to_number | `sip_req_user`, else `sip_to_user` | the request's address as it came in, before the dialplan changed it |
| source_ip | `sip_network_ip` | where the packet came from; never Via or Contact |
| x_tenant | `sip_h_X-Tenant` | custom headers keep the case they had on the wire |

The `*_stamp` variables are local time and are not read.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from schemas.decoded import Decoded, Ignored
from schemas.formats.building import Brief, UnreadableError, brief, text, unquoted
from schemas.formats.reporting import Reporter
from schemas.formats.times import (
    TimeError,
    first_microsecond,
    from_microseconds,
    from_seconds,
    last_microsecond,
)

TENANT_VARIABLE: Final = "sip_h_x-tenant"
_PREFIX: Final = b"sip_h_"
_LOOPBACK: Final = ("loopback/", "loopback%2F")
_Microseconds = Annotated[int, Meta(ge=first_microsecond, lt=last_microsecond)]
_from_timestamp: Final = datetime.fromtimestamp


class Leg(msgspec.Struct, gc=False):
    """The variables that are read; any JSON type, because a wrong one must not cost the record more than its field."""

    uuid: Any = None
    call_uuid: Any = None
    direction: Any = None
    originator: Any = None
    originating_leg_uuid: Any = None
    last_bridge_role: Any = None
    channel_name: Any = None
    user_context: Any = None
    sofia_profile_name: Any = None
    start_stamp: Any = None
    start_uepoch: Any = None
    answer_uepoch: Any = None
    end_uepoch: Any = None
    start_epoch: Any = None
    answer_epoch: Any = None
    end_epoch: Any = None
    sip_call_id: Any = None
    sip_from_user: Any = None
    sip_req_user: Any = None
    sip_to_user: Any = None
    sip_network_ip: Any = None
    x_tenant: Any = msgspec.field(default=None, name="sip_h_X-Tenant")


class IncomingLeg(msgspec.Struct, gc=False, kw_only=True):
    """The quick way to read a leg that came in, written as FreeSWITCH writes it, in its order.

    What is read so reads as the same `Leg`; whatever is not so plain is read as a `Leg` alone.
    """

    uuid: Annotated[str, Meta(min_length=1)]
    direction: Literal["inbound"]
    sip_from_user: Brief | None = None
    channel_name: Brief = ""
    sip_network_ip: Brief | None = None
    sofia_profile_name: Brief | None = None
    sip_req_user: Brief
    x_tenant: Brief | None = msgspec.field(default=None, name="sip_h_X-Tenant")
    user_context: Brief | None = None
    sip_call_id: str
    start_stamp: Annotated[str, Meta(min_length=1)]
    start_uepoch: _Microseconds
    answer_uepoch: Annotated[int, Meta(ge=0, lt=last_microsecond)]
    end_uepoch: _Microseconds


def reported_quickly(
    reporter: Reporter, message: object, leg: IncomingLeg, switch: str | None, x_tenant: str | None
) -> Decoded | None:
    """What `not_billable` and `reported` say of the same leg; None where they must be asked.

    Raises:
        UnreadableError: as `reported`.
    """
    if leg.channel_name.startswith(_LOOPBACK):
        return Ignored("loopback_leg")
    call_id, to_number = leg.sip_call_id, text(leg.sip_req_user)
    from_number, source_ip = leg.sip_from_user, leg.sip_network_ip
    if "%" in leg.start_stamp:
        call_id, to_number = unquoted(call_id), _unquoted(to_number)
        from_number, source_ip, x_tenant = _unquoted(from_number), _unquoted(source_ip), _unquoted(x_tenant)
    uuid = text(leg.uuid)
    if uuid is None or to_number is None:
        return None
    answered = leg.answer_uepoch
    if 0 < answered < first_microsecond:
        return None
    return reporter.decoded(
        message,
        uuid,
        text(call_id),
        switch,
        from_number,
        to_number,
        source_ip,
        x_tenant,
        _from_timestamp(leg.start_uepoch / 1_000_000, UTC),
        _from_timestamp(answered / 1_000_000, UTC) if answered else None,
        _from_timestamp(leg.end_uepoch / 1_000_000, UTC),
    )


@lru_cache(maxsize=16_384)
def _unquoted(value: str | None) -> str | None:
    return None if value is None else text(unquoted(value))


def not_billable(leg: Leg) -> Ignored | None:
    """Why a leg is no call of its own; None for the leg that came in."""
    name = leg.channel_name
    if name.__class__ is str and name.startswith(_LOOPBACK):
        return Ignored("loopback_leg")
    if leg.direction == "inbound":
        return None
    made_for_another = text(leg.originator) or text(leg.originating_leg_uuid)
    if made_for_another or text(leg.last_bridge_role) == "originatee":
        return Ignored("b_leg")
    if leg.direction == "outbound":  # the switch called by itself: click to call, a conference
        return Ignored("originated_leg")
    # releases before 1.8 do not name the direction: a B leg carries its A leg's uuid as the call's
    call = text(leg.call_uuid)
    return Ignored("b_leg") if call is not None and call != text(leg.uuid) else None


def reported(
    reporter: Reporter, message: object, leg: Leg, switch: object, called: object, x_tenant: str | None
) -> Decoded:
    """The record of the call that an incoming leg is.

    Args:
        reporter: the input's.
        message: the whole message, where the direction may be told.
        leg: its variables.
        switch: what FreeSWITCH calls itself.
        called: the number called, where the variables lack it.
        x_tenant: the tenant header's value as sent.

    Raises:
        UnreadableError: no uuid, no start, or a time that is none.
    """
    uuid = text(leg.uuid)
    if uuid is None:
        raise UnreadableError("uuid: missing")
    try:
        started_at = _instant(leg.start_uepoch, leg.start_epoch)
        answered_at = _instant(leg.answer_uepoch, leg.answer_epoch)
        ended_at = _instant(leg.end_uepoch, leg.end_epoch)
    except TimeError as error:
        raise UnreadableError(f"start, answer or end: {error}") from None
    if started_at is None:
        raise UnreadableError("start_uepoch: missing")
    if answered_at is not None and ended_at is None:
        raise UnreadableError("end_uepoch: missing on an answered leg")
    plain = _decoded if is_encoded(leg) else text
    return reporter.decoded(
        message,
        uuid,
        plain(leg.sip_call_id),
        brief(switch),
        brief(plain(leg.sip_from_user)),
        brief(plain(leg.sip_req_user) or plain(leg.sip_to_user) or plain(called)),
        brief(plain(leg.sip_network_ip)),
        brief(plain(x_tenant)),
        started_at,
        answered_at,
        ended_at,
    )


def _instant(microseconds: object, seconds: object) -> datetime | None:
    """When it was; the seconds say so where the microseconds are not sent."""
    return from_seconds(seconds) if microseconds in (None, "") else from_microseconds(microseconds)


def tenant_spelt(value: bytes, prefix: bytes = b'"') -> str | None:
    """How the message spells the variable of the tenant header; None where it has none.

    Variables of custom headers begin with `sip_h_` and go on as the header was written on the wire.
    """
    start = prefix + _PREFIX
    length = len(prefix) + len(TENANT_VARIABLE)
    at = value.find(start)
    while at >= 0:
        spelt = value[at + len(prefix) : at + length]
        if value[at + length : at + length + 1] == b'"' and spelt.lower() == TENANT_VARIABLE.encode():
            return spelt.decode()
        at = value.find(start, at + 1)
    return None


def is_encoded(leg: Leg | IncomingLeg) -> bool:
    """Whether the values are URL-encoded: no start is without a blank or a colon, and encoded it has a `%`."""
    stamp = leg.start_stamp
    return "%" in stamp if isinstance(stamp, str) and stamp else "%40" in (text(leg.channel_name) or "")


def _decoded(value: object) -> str | None:
    plain = text(value)
    return None if plain is None else text(unquoted(plain))

"""Kamailio: call records of acc_json's CDR engine, and INVITE events, as deploy/switches/kamailio.cfg sends them.

The record of a call is the one that acc writes when its dialog ends: a dialog is one call, whatever was forked or tried
behind it. The dialog module's own events of the same call count whole seconds; they are ignored beside acc's.

| billing | CDR field | meaning |
|---|---|---|
| id | `call_id` with `from_tag` and `cseq`, else with `invite_ts`, else with `start_time` | one INVITE is one dialog; an authentication retry is another |
| switch | the input's `switch` | not in the record |
| started_at | `invite_ts`, never later than `start_time` | `start_time` is cut to milliseconds |
| answered_at, ended_at | `start_time`, `end_time` | with `cdr_start_on_confirmed`; seconds with decimals |
| answered_seconds | `duration` | acc's milliseconds; 0: never answered |
| from_number, to_number | `from_user`, `to_user` | From user, request user |
| source_ip | `src_ip` | `$si`, where the packet came from |
| x_tenant | `tenant` or `x_tenant` | absent as `""` or `"<null>"`; `NON-UTF8` is kept: a name that is nobody's |
| direction by `record` | `direction` | where the routing script knows it |

| billing | INVITE field | meaning |
|---|---|---|
| switch | the input's `switch` | |
| observed_at, source_ip | `ts`, `src_ip` | `$TV(Sn)`, `$si` |
| call_id, cseq | `call_id`, `cseq` | |
| x_tenant | `x_tenant`, else `x_tenant_b64` | base64 where the header is no UTF-8 |

Ignored: transactions of acc (no duration, so no call), the dialog module's copies, challenged attempts (401, 407).
Source: Kamailio's acc, acc_json, dialog and pseudo-variables documentation.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from schemas.decoded import Decoded, Ignored
from schemas.formats.building import (
    QUICKLY_UNREADABLE,
    Brief,
    UnreadableError,
    brief,
    parsed,
    record_id,
    text,
    total,
)
from schemas.formats.dialect import Decoder, Dialect, Format
from schemas.formats.reporting import Reporter
from schemas.formats.sip_events import initial_invite
from schemas.formats.times import TimeError, first_second, from_seconds, last_second
from schemas.records import seconds
from schemas.sip_message import SipMessage, tenant_named

_CHALLENGES: Final = frozenset({"401", "407"})
_from_timestamp: Final = datetime.fromtimestamp


class _Cdr(msgspec.Struct, gc=False):
    type: Any = None
    source: Any = None
    method: Any = None
    call_id: Any = None
    callid: Any = None
    from_tag: Any = None
    cseq: Any = None
    invite_ts: Any = None
    start_time: Any = None
    end_time: Any = None
    duration: Any = None
    sip_code: Any = None
    from_user: Any = None
    to_user: Any = None
    src_ip: Any = None
    tenant: Any = None
    x_tenant: Any = None
    direction: Any = None


class _PlainCdr(msgspec.Struct, gc=False, kw_only=True):
    """The quick way to read a record of a dialog; what is read so reads as the same `_Cdr`."""

    start_time: Annotated[float, Meta(ge=first_second, lt=last_second)]
    end_time: Annotated[float, Meta(ge=first_second, lt=last_second)]
    duration: Brief
    call_id: Annotated[str, Meta(min_length=1)]
    tenant: Brief | None = None
    x_tenant: Brief | None = None
    from_user: Brief | None = None
    to_user: Brief | None = None
    src_ip: Brief | None = None
    from_tag: str | None = None
    cseq: str | None = None
    invite_ts: str
    direction: Brief | None = None
    source: Any = None
    type: Any = None
    sip_code: Brief = ""


class _Invite(msgspec.Struct, gc=False):
    type: Any = None
    call_id: Any = None
    ts: Any = None
    src_ip: Any = None
    cseq: Any = None
    x_tenant: Any = None
    x_tenant_b64: Any = None


_CDR: Final = msgspec.json.Decoder(_Cdr)
_PLAIN_CDR: Final = msgspec.json.Decoder(_PlainCdr, strict=False)
_INVITE: Final = msgspec.json.Decoder(_Invite)


def make_calls(settings: Format) -> Decoder:
    """The decoder of an input of call records."""
    reporter = Reporter(CALLS, settings)

    def read(value: bytes) -> Decoded:
        try:
            decoded = _reported_quickly(reporter, _PLAIN_CDR.decode(value))
        except QUICKLY_UNREADABLE:
            decoded = None
        if decoded is not None:
            return decoded
        cdr = parsed(_CDR, value)
        return _not_billable(cdr) or _reported(reporter, cdr)

    return total(read)


def make_sip(settings: Format) -> Decoder:
    """The decoder of an input of INVITE events."""

    def read(value: bytes) -> Decoded:
        event = parsed(_INVITE, value)
        if event.type != "sip.invite":
            return Ignored("sip_not_invite")
        call_id, cseq = text(event.call_id), text(event.cseq)
        if call_id is None or cseq is None or not (cseq.isascii() and cseq.isdecimal()) or len(cseq) > 10:
            raise UnreadableError("call_id or cseq: missing or wrong")
        message = SipMessage("INVITE", call_id, int(cseq), None, _tenant(event))
        return initial_invite(message, settings.switch, _time(event.ts), text(event.src_ip))

    return total(read)


def _reported_quickly(reporter: Reporter, cdr: _PlainCdr) -> Decoded | None:
    """What `_not_billable` and `_reported` say of the same record; None where they must be asked."""
    call_id, begun = text(cdr.call_id), _second(cdr.invite_ts)
    if call_id is None or begun is None or cdr.source == "dialog" or cdr.type == "sip.invite":
        return None
    if cdr.sip_code in _CHALLENGES:
        return Ignored("challenged")
    duration, answered = _lasting(cdr.duration)
    return reporter.decoded(
        cdr,
        _id(cdr, call_id),
        call_id,
        None,
        cdr.from_user,
        cdr.to_user,
        cdr.src_ip,
        cdr.tenant if text(cdr.tenant) else cdr.x_tenant,
        _from_timestamp(min(begun, cdr.start_time), UTC),
        _from_timestamp(cdr.start_time, UTC) if answered else None,
        _from_timestamp(cdr.end_time, UTC) if answered else None,
        duration,
    )


def _second(said: str) -> float | None:
    try:
        second = float(said)
    except ValueError:
        return None
    return second if first_second <= second < last_second else None


def _not_billable(cdr: _Cdr) -> Ignored | None:
    if cdr.type == "sip.invite":
        return Ignored("sip_event")
    if cdr.source == "dialog":
        return Ignored("dialog_copy")
    if cdr.duration is None and cdr.method is not None:
        return Ignored("transaction_event")
    return Ignored("challenged") if text(cdr.sip_code) in _CHALLENGES else None


def _reported(reporter: Reporter, cdr: _Cdr) -> Decoded:
    call_id = text(cdr.call_id) or text(cdr.callid)
    if call_id is None:
        raise UnreadableError("call_id: missing")
    try:
        start, end, invited = (
            from_seconds(cdr.start_time),
            from_seconds(cdr.end_time),
            from_seconds(cdr.invite_ts),
        )
    except TimeError as error:
        raise UnreadableError(f"start_time, end_time or invite_ts: {error}") from None
    if start is None or end is None:
        raise UnreadableError("start_time or end_time: missing")
    duration, answered = _lasting(brief(cdr.duration))
    return reporter.decoded(
        cdr,
        _id(cdr, call_id),
        call_id,
        None,
        brief(cdr.from_user),
        brief(cdr.to_user),
        brief(cdr.src_ip),
        brief(cdr.tenant) or brief(cdr.x_tenant),
        start if invited is None or start < invited else invited,
        start if answered else None,
        end if answered else None,  # acc gives a failed call no end: both of its times are its beginning
        duration,
    )


def _id(cdr: _Cdr | _PlainCdr, call_id: str) -> str:
    tag, cseq = text(cdr.from_tag), text(cdr.cseq)
    if tag and cseq:
        return record_id(call_id, tag, cseq)
    return record_id(call_id, text(cdr.invite_ts) or text(cdr.start_time) or "")


@lru_cache(maxsize=65_536)
def _lasting(said: str | None) -> tuple[Decimal, bool]:
    """The seconds from answer to end, and whether there were any."""
    try:
        duration = seconds(said)
    except ValueError:
        raise UnreadableError("duration: no seconds") from None
    return duration, duration > 0


def _time(value: object) -> datetime | None:
    try:
        return from_seconds(value)
    except TimeError as error:
        raise UnreadableError(f"ts: {error}") from None


def _tenant(event: _Invite) -> str | None:
    named = text(event.x_tenant)
    encoded = text(event.x_tenant_b64)
    if named is None and encoded is not None:
        try:
            named = base64.b64decode(encoded, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            raise UnreadableError("x_tenant_b64: no base64") from None
    return None if named is None else tenant_named([named])


CALLS: Final = Dialect(
    kind="calls",
    name="kamailio",
    make=make_calls,
    tells={"record": lambda cdr: text(cdr.direction), "source": None},
    needs=frozenset({"direction", "switch"}),
    takes=frozenset({"hops", "on_net"}),
)
SIP: Final = Dialect(kind="sip", name="kamailio", make=make_sip, tells={}, needs=frozenset({"switch"}))

"""OpenSIPS's E_ACC_CDR: a JSON-RPC notification per call, when its dialog ends.

| billing | `params` field | meaning, by the acc module's events |
|---|---|---|
| id | `callid` and `from_tag` | one dialog, whatever was forked or tried behind it |
| switch | the input's `switch` | not in the event |
| started_at | `created` | when the initial INVITE was received; whole seconds |
| answered_at | `time` | when the call was established; whole seconds |
| answered_seconds, ended_at | `ms_duration`, else `duration` | from established to end |
| call_id | `callid` | |
| from_number, to_number, source_ip, x_tenant | `from_user`, `to_user`, `src_ip`, `x_tenant` | extra fields that the script sets (deploy/switches/opensips.md) |
| direction by `record` | `direction` | another extra field |

Ignored: `E_ACC_EVENT` and `E_ACC_MISSED_EVENT` (transactions: a call has several, none has a duration), other events.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

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
from schemas.formats.times import TimeError, first_second, from_seconds, last_second
from schemas.records import seconds

_CDR: Final = "E_ACC_CDR"
_TRANSACTIONS: Final = frozenset({"E_ACC_EVENT", "E_ACC_MISSED_EVENT"})
_Second = Annotated[float, Meta(ge=first_second, lt=last_second)]
_milliseconds_end: Final = 10**9  # what lasts eleven days is no call


class _Params(msgspec.Struct, gc=False):
    callid: Any = None
    from_tag: Any = None
    created: Any = None
    time: Any = None
    duration: Any = None
    ms_duration: Any = None
    from_user: Any = None
    to_user: Any = None
    src_ip: Any = None
    x_tenant: Any = None
    direction: Any = None


class _Event(msgspec.Struct, gc=False):
    method: Any = None
    params: _Params = msgspec.field(default_factory=_Params)


class _PlainParams(msgspec.Struct, gc=False, kw_only=True):
    """The quick way to read a call; what is read so reads as the same `_Params`."""

    from_tag: str
    callid: str
    time: _Second
    src_ip: Brief | None = None
    from_user: Brief | None = None
    to_user: Brief | None = None
    x_tenant: Brief | None = None
    direction: Brief | None = None
    ms_duration: Annotated[int, Meta(ge=0, lt=_milliseconds_end)]
    created: _Second


class _PlainEvent(msgspec.Struct, gc=False):
    method: Literal["E_ACC_CDR"]
    params: _PlainParams


_EVENT: Final = msgspec.json.Decoder(_Event)
_PLAIN_EVENT: Final = msgspec.json.Decoder(_PlainEvent, strict=False)


def make(settings: Format) -> Decoder:
    """The decoder of one input."""
    reporter = Reporter(DIALECT, settings)

    def read(value: bytes) -> Decoded:
        try:
            params = _PLAIN_EVENT.decode(value).params
        except QUICKLY_UNREADABLE:
            return _read(reporter, value)
        call_id, tag = text(params.callid), text(params.from_tag)
        if call_id is None or tag is None:
            return _read(reporter, value)
        answered_at = datetime.fromtimestamp(params.time, UTC)
        return _reported(
            reporter,
            params,
            record_id(call_id, tag),
            call_id,
            datetime.fromtimestamp(params.created, UTC) if params.created < params.time else answered_at,
            answered_at,
            *_lasting(params.ms_duration),
        )

    return total(read)


def _read(reporter: Reporter, value: bytes) -> Decoded:
    event = parsed(_EVENT, value)
    if event.method != _CDR:
        if not isinstance(event.method, str):
            raise UnreadableError("method: missing")
        return Ignored("transaction_event" if event.method in _TRANSACTIONS else "other_event")
    params = event.params
    call_id = text(params.callid)
    if call_id is None:
        raise UnreadableError("callid: missing")
    try:
        created_at, answered_at = from_seconds(params.created), from_seconds(params.time)
    except TimeError as error:
        raise UnreadableError(f"created or time: {error}") from None
    if answered_at is None:
        raise UnreadableError("time: missing")
    for name in ("from_user", "to_user", "src_ip", "x_tenant"):
        setattr(params, name, brief(getattr(params, name)))
    return _reported(
        reporter,
        params,
        record_id(call_id, text(params.from_tag) or ""),
        call_id,
        answered_at if created_at is None or answered_at < created_at else created_at,
        answered_at,
        *_duration(params),
    )


def _reported(
    reporter: Reporter,
    params: _Params | _PlainParams,
    id_: str,
    call_id: str,
    started_at: datetime,
    answered_at: datetime,
    answered_seconds: Decimal,
    answered: timedelta,
) -> Decoded:
    return reporter.decoded(
        params,
        id_,
        call_id,
        None,
        params.from_user,
        params.to_user,
        params.src_ip,
        params.x_tenant,
        started_at,
        answered_at,
        answered_at + answered,
        answered_seconds,
    )


@lru_cache(maxsize=65_536)
def _lasting(milliseconds: int) -> tuple[Decimal, timedelta]:
    """A duration as its exact seconds and as what can be added to a time."""
    return Decimal(milliseconds).scaleb(-3), timedelta(milliseconds=milliseconds)


def _duration(params: _Params) -> tuple[Decimal, timedelta]:
    exact = text(params.ms_duration)
    try:
        told = seconds(text(params.duration) if exact is None else exact)
    except ValueError:
        raise UnreadableError("ms_duration or duration: missing or wrong") from None
    if exact is None:
        return told, timedelta(microseconds=int(told.scaleb(6)))
    if told != int(told):
        raise UnreadableError("ms_duration: no whole milliseconds")
    return _lasting(int(told))


DIALECT: Final = Dialect(
    kind="calls",
    name="opensips_cdr",
    make=make,
    tells={"record": lambda params: text(params.direction), "source": None},
    needs=frozenset({"direction", "switch"}),
    takes=frozenset({"hops", "on_net"}),
)

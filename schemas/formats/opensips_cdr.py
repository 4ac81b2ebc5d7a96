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

from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from schemas.decoded import Decoded, Ignored
from schemas.formats.building import (
    UnreadableError,
    duration_seconds,
    parsed,
    record_id,
    text,
    total,
)
from schemas.formats.dialect import Decoder, Dialect, Format
from schemas.formats.reporting import Reporter
from schemas.formats.times import TimeError, from_seconds

_CDR: Final = "E_ACC_CDR"
_TRANSACTIONS: Final = frozenset({"E_ACC_EVENT", "E_ACC_MISSED_EVENT"})


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


_EVENT: Final = msgspec.json.Decoder(_Event)


def make(settings: Format) -> Decoder:
    """The decoder of one input."""
    reporter = Reporter(DIALECT, settings)

    def read(value: bytes) -> Decoded:
        event = parsed(_EVENT, value)
        if event.method == _CDR:
            return _reported(reporter, event.params)
        if not isinstance(event.method, str):
            raise UnreadableError("method: missing")
        return Ignored("transaction_event" if event.method in _TRANSACTIONS else "other_event")

    return total(read)


def _reported(reporter: Reporter, params: _Params) -> Decoded:
    call_id = text(params.callid)
    if call_id is None:
        raise UnreadableError("callid: missing")
    try:
        created_at, answered_at = from_seconds(params.created), from_seconds(params.time)
    except TimeError as error:
        raise UnreadableError(f"created or time: {error}") from None
    if answered_at is None:
        raise UnreadableError("time: missing")
    duration = _duration(params)
    return reporter.decoded(
        params,
        record_id(call_id, text(params.from_tag) or ""),
        call_id,
        None,
        params.from_user,
        params.to_user,
        params.src_ip,
        params.x_tenant,
        answered_at if created_at is None or answered_at < created_at else created_at,
        answered_at,
        answered_at + timedelta(microseconds=int(duration.scaleb(6))),
        duration,
    )


def _duration(params: _Params) -> Decimal:
    milliseconds = text(params.ms_duration)
    try:
        if milliseconds is not None:
            return duration_seconds(milliseconds).scaleb(-3)
        return duration_seconds(text(params.duration))
    except ValueError:
        raise UnreadableError("ms_duration or duration: missing or wrong") from None


DIALECT: Final = Dialect(
    kind="calls",
    name="opensips_cdr",
    make=make,
    tells={"record": lambda params: text(params.direction), "source": None},
    needs=frozenset({"direction", "switch"}),
    takes=frozenset({"hops", "on_net"}),
)

"""Asterisk's cdr_kafka: one JSON object per CDR, of which Asterisk may write several for one call.

A forked or repeated Dial, a queue and a transfer each write rows of one `linkedid`; one row alone cannot tell what the
others say. The input's `rows` decides:

- `answered` (the default): the call is the row of the call's first channel (`uniqueid` is the `linkedid`, or is not
  sent) whose disposition is ANSWERED; its id is the `linkedid`. Unanswered rows are ignored, because another row of the
  call may be the answered one. A second answered row of one call is quarantined as a conflict, never added.
- `every`: the dialplan writes one row per call. Each is billed as its channel's call, unanswered ones as attempts; the
  id is the `uniqueid`, else the `linkedid`.

| billing | field | meaning, by Asterisk's CDR specification |
|---|---|---|
| id | `linkedid`, `uniqueid` | `<epoch second>.<serial>` of the channel, behind `<systemname>-` where one is set |
| switch | `SystemName`, else the input's `switch`, else `EntityID` | serials are unique within one Asterisk only |
| started_at, answered_at, ended_at | `start`, `answer`, `end` | ISO 8601; local to the input's zone without an offset |
| (told apart by) | `durationsec` or `duration`, `billsec`, the id's second | a local time that happened twice |
| from_number, to_number | `src`, `dst` | |
| call_id, source_ip, x_tenant | `userfield` | `call_id=…&source_ip=…&x_tenant=…`, which the dialplan sets (deploy/switches/asterisk.md) |
| direction by `context`, `channel`, `trunk` | `dcontext`, `channel`, `channel` without its serial | |
| direction by `record` | `userfield` | `direction=inbound` or `outbound` |

`billsec` may be above 0 on rows that were not answered and bills nothing; `disposition` may be its number (8 is ANSWERED).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from schemas.decoded import Decoded, Ignored, Rejected
from schemas.formats.building import (
    AMBIGUOUS_TIME,
    QUICKLY_UNREADABLE,
    Brief,
    UnreadableError,
    brief,
    parsed,
    remembered_length_max,
    text,
    total,
    unquoted,
)
from schemas.formats.dialect import ZONE_IN_RECORD, Decoder, Dialect, Format
from schemas.formats.reporting import Reporter
from schemas.formats.times import CallTimes, TimeError, candidates, from_seconds, told_apart

_ANSWERED: Final = frozenset({"ANSWERED", "8"})
_CHANNEL_SERIAL: Final = re.compile(r"-[0-9a-f]{8}(?:;[12])?$")
_CHANNEL_SECOND: Final = re.compile(r"(?:^|-)([0-9]{9,10})\.[0-9]+$")


_TEXTS: Final = ("src", "dst", "systemname", "entity")
_Instant = Annotated[datetime, Meta(tz=True)]
_Times = tuple[datetime, datetime | None, datetime | None]


class _Row(msgspec.Struct, gc=False):
    src: Any = None
    dst: Any = None
    dcontext: Any = None
    channel: Any = None
    start: Any = None
    answer: Any = None
    end: Any = None
    durationsec: Any = None
    duration: Any = None
    billsec: Any = None
    disposition: Any = None
    uniqueid: Any = None
    linkedid: Any = None
    userfield: Any = None
    entity: Any = msgspec.field(default=None, name="EntityID")
    systemname: Any = msgspec.field(default=None, name="SystemName")


class _PlainRow(msgspec.Struct, gc=False, kw_only=True):
    """The quick way to read an answered row whose times have offsets; what is read so reads as the same `_Row`."""

    src: Brief | None = None
    dst: Brief | None = None
    dcontext: Brief | None = None
    channel: Brief = ""
    start: _Instant
    answer: _Instant
    end: _Instant
    disposition: Brief = ""
    uniqueid: str | None = None
    linkedid: str | None = None
    userfield: str | None = None
    entity: Brief | None = msgspec.field(default=None, name="EntityID")
    systemname: Brief | None = msgspec.field(default=None, name="SystemName")


def _said(row: _Row | _PlainRow) -> dict[str, str]:
    """What the dialplan put into the user field, by name."""
    field = row.userfield
    if field.__class__ is not str:
        return {}
    first, _, rest = field.partition("&")
    name, _, value = first.partition("=")
    pairs = _pairs(rest) if len(rest) <= remembered_length_max else _pairs.__wrapped__(rest)
    return {name: unquoted(value[:remembered_length_max]), **pairs}


@lru_cache(maxsize=16_384)
def _pairs(field: str) -> dict[str, str]:
    """Names and values; those that follow the Call-ID repeat from call to call."""
    pairs = [part.split("=", 1) for part in field.split("&") if "=" in part]
    return {name: unquoted(value[:remembered_length_max]) for name, value in pairs}


_ROW: Final = msgspec.json.Decoder(_Row)
_PLAIN_ROW: Final = msgspec.json.Decoder(_PlainRow)


def make(settings: Format) -> Decoder:
    """The decoder of one input."""
    reporter = Reporter(DIALECT, settings)
    zone = None if settings.zone in {None, ZONE_IN_RECORD} else ZoneInfo(str(settings.zone))
    every = settings.rows == "every"

    def read(value: bytes) -> Decoded:
        row = _row(value)
        linked, unique = text(row.linkedid), text(row.uniqueid)
        record_id = unique or linked if every else linked
        if record_id is None:
            raise UnreadableError("linkedid: missing")
        if (text(row.channel) or "").startswith("Local/"):
            return Ignored("local_channel")  # a loop inside Asterisk, beside the channel that it stands for
        ignored = None if every else _not_one_call(row, linked, unique)
        if ignored is not None:
            return ignored
        try:
            times = _times(row, zone, unique or linked)
        except TimeError as error:
            return Rejected(AMBIGUOUS_TIME, f"start, answer or end: {error}")
        said = _said(row)
        return reporter.decoded(
            row,
            record_id,
            text(said.get("call_id")),
            text(row.systemname) or settings.switch or row.entity,
            row.src,
            row.dst,
            said.get("source_ip"),
            said.get("x_tenant"),
            *times,
        )

    return total(read)


def _row(value: bytes) -> _Row | _PlainRow:
    try:
        return _PLAIN_ROW.decode(value)
    except QUICKLY_UNREADABLE:
        row = parsed(_ROW, value)
    for name in _TEXTS:
        setattr(row, name, brief(getattr(row, name)))
    return row


def _not_one_call(row: _Row | _PlainRow, linked: str | None, unique: str | None) -> Ignored | None:
    """Why a row is not the one by which its call is billed; None where it is."""
    if unique is not None and unique != linked:
        return Ignored("other_channel")
    answered = row.disposition == "ANSWERED" or (text(row.disposition) or "").upper() in _ANSWERED
    return (
        None if answered and (isinstance(row, _PlainRow) or text(row.answer)) else Ignored("unanswered_row")
    )


def _times(row: _Row | _PlainRow, zone: ZoneInfo | None, channel: str | None) -> _Times:
    if not isinstance(row, _PlainRow):
        return _times_told_apart(row, zone, channel)
    try:
        return row.start.astimezone(UTC), row.answer.astimezone(UTC), row.end.astimezone(UTC)
    except OverflowError:
        raise TimeError("no ISO 8601 time") from None


def _times_told_apart(row: _Row, zone: ZoneInfo | None, channel: str | None) -> CallTimes:
    started, answered, ended = text(row.start), text(row.answer), text(row.end)
    if started is None:
        raise UnreadableError("start: missing")
    if answered is not None and ended is None:
        raise UnreadableError("end: missing on an answered row")
    return told_apart(
        candidates(started, zone),
        None if answered is None else candidates(answered, zone),
        None if ended is None else candidates(ended, zone),
        seconds=_whole(row.durationsec if row.durationsec is not None else row.duration),
        answered_seconds=_whole(row.billsec) if answered else None,
        began_at=_began(channel),
    )


def _began(channel: str | None) -> datetime | None:
    match = _CHANNEL_SECOND.search(channel or "")
    try:
        return from_seconds(match[1]) if match else None
    except TimeError:
        return None


def _whole(value: object) -> int | None:
    said = text(value)
    return int(said) if said is not None and len(said) < 10 and said.isascii() and said.isdecimal() else None


def _trunk(row: _Row | _PlainRow) -> str | None:
    channel = text(row.channel)
    return None if channel is None else _CHANNEL_SERIAL.sub("", channel)


DIALECT: Final = Dialect(
    kind="calls",
    name="asterisk_cdr",
    make=make,
    tells={
        "context": lambda row: text(row.dcontext),
        "channel": lambda row: text(row.channel),
        "trunk": _trunk,
        "record": lambda row: text(_said(row).get("direction")),
        "source": None,
    },
    needs=frozenset({"direction", "zone"}),
    takes=frozenset({"switch", "hops", "on_net", "rows"}),
)

"""Raw SIP text behind a line that says when and whence: `2026/10/10 12:00:00.250000 192.0.2.5:5080 -> 198.51.100.9:5060`.

That line is what capture tools (sngrep, ngrep) write above each message. Without it there is no packet source, and a
message's Via or Contact must not stand in for one, so such a message is refused; a topic whose producer knows time and
source apart from the text sends the canonical envelope with `raw`.

| billing | where | meaning |
|---|---|---|
| switch | the input's `switch` | |
| observed_at | date and time of the first line | `/` or `-` in the date; local to the input's zone without an offset |
| source_ip | the address before `->` | IPv6 in brackets, or with the port after the last colon |
| call_id, cseq, x_tenant, to_tag | the message (schemas/sip_message.py) | bytes that are no UTF-8 become U+FFFD |
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from schemas.decoded import Decoded, Rejected
from schemas.formats.building import AMBIGUOUS_TIME, UnreadableError, total
from schemas.formats.dialect import ZONE_IN_RECORD, Decoder, Dialect, Format
from schemas.formats.sip_events import sip_event
from schemas.formats.times import TimeError, candidates

_HEADING: Final = re.compile(
    r"[ \t\r\n]{0,8}(?:[A-Z]{1,3} )?([0-9]{4})[/-]([0-9]{2})[/-]([0-9]{2})[ T]([0-9:.]{8,15}(?:Z|[+-][0-9:]{4,6})?) "
    r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Fa-f:.]{2,45}?):[0-9]{1,5} -> [^\r\n]{1,80}\r?\n"
)


def make(settings: Format) -> Decoder:
    """The decoder of one input."""
    zone = None if settings.zone in {None, ZONE_IN_RECORD} else ZoneInfo(str(settings.zone))

    def read(value: bytes) -> Decoded:
        message = value.decode("utf-8", "replace")
        heading = _HEADING.match(message)
        if heading is None:
            raise UnreadableError(
                "no first line with date, time and source, so the packet's source is not known"
            )
        year, month, day, clock, source = heading.groups()
        try:
            observed_at = _only(candidates(f"{year}-{month}-{day}T{clock}", zone))
        except TimeError as error:
            return Rejected(AMBIGUOUS_TIME, f"first line: {error}")
        return sip_event(message[heading.end() :], settings.switch, observed_at, source)

    return total(read)


def _only(instants: tuple[datetime, ...]) -> datetime:
    if len(instants) > 1:
        raise TimeError("a local time that happened twice, and nothing tells which one it was")
    return instants[0]


DIALECT: Final = Dialect(
    kind="sip", name="sip_text", make=make, tells={}, needs=frozenset({"switch", "zone"})
)

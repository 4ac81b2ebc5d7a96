"""What a SIP message says in the few headers that billing reads (RFC 3261 sections 7.3 and 25.1).

A scan of the header lines: any case, compact names, folded lines, blanks before the colon, CRLF or bare LF.
The body is never looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_COMPACT: Final = {"i": "call-id", "f": "from", "t": "to"}
_FOLD: Final = re.compile(r"\r?\n[ \t]+")
_TAG: Final = re.compile(r";\s*tag\s*=\s*([^\s;,>]+)", re.IGNORECASE)
_CSEQ: Final = re.compile(r"(\d{1,10})\s+(\S+)")
_REQUEST: Final = re.compile(r"([A-Za-z0-9\-.!%*_+`'~]{1,64}) \S+ SIP/2\.0\s*", re.IGNORECASE)
_RESPONSE: Final = re.compile(r"SIP/2\.0 \d{3}( .*)?", re.IGNORECASE)
TENANT_HEADER: Final = "x-tenant"


class MalformedSipError(ValueError):
    """The text is no SIP message, or lacks what every SIP message carries."""


@dataclass(frozen=True, slots=True)
class SipMessage:
    """The parts of a SIP message that billing reads.

    `method` is None for a response. `x_tenant` is None where the header is absent or empty; a header sent
    several times is joined with ", " unless all copies say the same.
    """

    method: str | None
    call_id: str
    cseq: int
    to_tag: str | None
    x_tenant: str | None


def read_sip_message(text: str) -> SipMessage:
    """Read a message's start line and headers.

    Raises:
        MalformedSipError: no SIP start line, or Call-ID or CSeq is missing or broken.
    """
    head = re.split(r"\r?\n\r?\n", text.lstrip("\r\n"), maxsplit=1)[0]
    lines = _FOLD.sub(" ", head).split("\n")
    method = _method(lines[0].rstrip("\r"))
    headers = _headers(lines[1:])
    call_ids = headers.get("call-id")
    if not call_ids or not call_ids[0]:
        raise MalformedSipError("no Call-ID")
    cseq = _CSEQ.fullmatch(headers.get("cseq", [""])[0])
    if cseq is None:
        raise MalformedSipError("no CSeq with a number and a method")
    to_tag = _TAG.search(headers.get("to", [""])[0].rpartition(">")[2])  # parameters follow the address
    return SipMessage(
        method=method,
        call_id=call_ids[0],
        cseq=int(cseq[1]),
        to_tag=to_tag[1] if to_tag else None,
        x_tenant=tenant_named(headers.get(TENANT_HEADER, [])),
    )


def tenant_named(values: list[str]) -> str | None:
    """The one name that all copies of the `X-Tenant` header give, trimmed; None where they name nobody (A5)."""
    names = list(dict.fromkeys(name for value in values if (name := value.strip())))
    return ", ".join(names) or None


def _method(start_line: str) -> str | None:
    if _RESPONSE.fullmatch(start_line):
        return None
    request = _REQUEST.fullmatch(start_line)
    if request is None:
        raise MalformedSipError("the first line is neither a SIP request nor a SIP response")
    return request[1]


def _headers(lines: list[str]) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            key = name.strip().lower()
            headers.setdefault(_COMPACT.get(key, key), []).append(value.strip())
    return headers

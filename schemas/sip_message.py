"""What a SIP message says in the few headers that billing reads (RFC 3261 sections 7.3 and 25.1).

One pass over the header lines: any case, compact names, folded lines, blanks before the colon, CRLF or bare LF. What
RFC 4475 calls valid is read; what it calls broken is refused, because a message that two readers understand differently
must not decide a bill. Every pattern is anchored or possessive, so no text takes longer than its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

import msgspec

TENANT_HEADER: Final = "x-tenant"
message_length_max: Final = 262_144  # characters; the largest UDP packet is a quarter of it

_READ: Final = {
    "call-id": "call-id",
    "i": "call-id",
    "from": "from",
    "f": "from",
    "to": "to",
    "t": "to",
    "cseq": "cseq",
    "via": "via",
    "v": "via",
    "contact": "contact",
    "m": "contact",
    "content-length": "content-length",
    "l": "content-length",
    "max-forwards": "max-forwards",
    "date": "date",
    TENANT_HEADER: TENANT_HEADER,
}
_USUAL: Final[dict[str, str | None]] = {
    **{
        name: _READ[name.lower()]
        for name in ("Call-ID", "From", "To", "CSeq", "Via", "Contact", "Content-Length")
    },
    **{
        name: _READ[name.lower()]
        for name in ("Max-Forwards", "Date", "X-Tenant", "i", "f", "t", "v", "m", "l")
    },
    **dict.fromkeys(
        ("User-Agent", "Allow", "Supported", "Content-Type", "Record-Route", "P-Asserted-Identity")
    ),
    **dict.fromkeys(
        ("Allow-Events", "Session-Expires", "Min-SE", "Privacy", "Content-Disposition", "Require")
    ),
}
# Headers that may come several times, and what their values are joined with; all others that are read come once.
_JOINED_WITH: Final = {"via": ",", "contact": ",", TENANT_HEADER: "\n"}
_BLANKS: Final = (" ", "\t")
_EMPTY: Final = ("", "\r")
_name_length_max: Final = 64  # characters; what is remembered must not fill the memory
_HEAD_END: Final = re.compile(r"\n\r?\n")
_FOLD: Final = re.compile(r"\r?\n[ \t]++")
_REQUEST: Final = re.compile(r"([A-Za-z0-9\-.!%*_+`'~]{1,64}) ([^\s<>\"]++) SIP/2\.0", re.IGNORECASE)
_RESPONSE: Final = re.compile(r"SIP/2\.0 [1-6][0-9]{2}(?: .*)?", re.IGNORECASE)
_CSEQ: Final = re.compile(r"\s*+([0-9]{1,20})\s++(\S++)\s*+")
_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_QUOTED: Final = r'"(?:[^"\\]|\\.)*+"'
# name-addr or addr-spec, then the header's own parameters (RFC 3261 section 20.10)
_ADDRESS: Final = re.compile(
    rf"\s*+(?:(?:{_QUOTED}\s*+|[^\",;<>@:\\/?=(){{}}\[\]]*+)<[^<>\s\"]++>|[^<>\s;,?\"]++)"
    rf"((?:\s*+;[^;\"<>]*+(?:{_QUOTED}[^;\"<>]*+)?+)*+)\s*+",
    re.DOTALL,
)
_QUOTED_TEXT: Final = re.compile(_QUOTED, re.DOTALL)
_TAG: Final = re.compile(r";\s*+tag\s*+=\s*+([^\s;,>\"]++)", re.IGNORECASE)
_EMPTY_PART: Final = re.compile(r"[;,]\s*+[;,]")
_PARTS: Final = re.compile(rf"(?:[^\";,]++|{_QUOTED}|[;,](?!\s*+[;,]))*+", re.DOTALL)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_hops_max: Final = 255


class MalformedSipError(ValueError):
    """The text is no SIP message, lacks what every SIP message carries, or can be understood in two ways."""


class _FoldedError(Exception):
    """Header lines go on in the next line."""


class SipMessage(msgspec.Struct, frozen=True, gc=False):
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
        MalformedSipError: no SIP start line, a header missing, repeated or broken, or a body shorter than announced.
    """
    if len(text) > message_length_max:
        raise MalformedSipError(f"longer than {message_length_max} characters")
    lines = iter(text.lstrip("\r\n").split("\n"))
    start_line = next(lines)
    method = _method(start_line.removesuffix("\r"))
    try:
        headers = _headers(lines)
    except _FoldedError:
        return read_sip_message(_unfolded(text))
    call_id = headers.get("call-id", "").strip()
    if not call_id:
        raise MalformedSipError("no Call-ID")
    cseq = _cseq(headers, method)
    _parameters(headers, "from")
    to_tag = _tag(_parameters(headers, "to"))
    _check_rest(headers)
    announced = headers.get("content-length")
    if announced is not None:
        _check_length(announced.strip(), lines if start_line.endswith("\r") else ())
    names = headers.get(TENANT_HEADER)
    return SipMessage(method, call_id, cseq, to_tag, tenant_named(names.split("\n")) if names else None)


def tenant_named(values: Iterable[str]) -> str | None:
    """The one name that all copies of the `X-Tenant` header give, trimmed; None where they name nobody (A5).

    Control characters are replaced, so that the name can be kept; it is nobody's then.
    """
    names = list(dict.fromkeys([name for value in values if (name := value.strip())]))
    if not names:
        return None
    joined = ", ".join(names)
    return joined if joined.isprintable() else _CONTROL.sub("\ufffd", joined)


def _unfolded(text: str) -> str:
    """A message whose folded header lines are one line each; its body stays as it is."""
    text = text.lstrip("\r\n")
    end = _HEAD_END.search(text)
    head = text if end is None else text[: end.start()]
    return _FOLD.sub(" ", head) + text[len(head) :]


def _method(start_line: str) -> str | None:
    request = _REQUEST.fullmatch(start_line)
    if request is None:
        if _RESPONSE.fullmatch(start_line):
            return None
        raise MalformedSipError("the first line is neither a SIP request nor a SIP response")
    method, uri = request.groups()
    if "?" in uri and uri[:4].lower() in {"sip:", "sips"} and "?" in uri.rpartition("@")[2]:
        raise MalformedSipError("the request's address carries headers")
    return method


def _headers(lines: Iterator[str]) -> dict[str, str]:
    """The headers that are read, by name; values as they stand, blanks around them included.

    Takes the lines up to the empty one, and leaves the body.
    """
    headers: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and name in _USUAL:
            key = _USUAL[name]
        elif line in _EMPTY:
            break
        else:
            key = _unusual(name, colon, lines)
        if key is None:
            continue
        if key in headers:
            _check_repeatable(key)
            repeated.setdefault(key, [headers[key]]).append(value)
        else:
            headers[key] = value
    for key, values in repeated.items():
        headers[key] = _JOINED_WITH[key].join(values)
    return headers


def _unusual(name: str, colon: str, lines: Iterator[str]) -> str | None:
    """The key of a header that is not written as usual; None where it is not read."""
    if name[:1] in _BLANKS:
        raise _FoldedError
    if colon:
        return _key(name) if len(name) <= _name_length_max else _key.__wrapped__(name)
    if name.strip():
        if next(lines, "")[:1] in _BLANKS:
            raise _FoldedError
        raise MalformedSipError("a header line without a colon")
    return None


@lru_cache(maxsize=4096)
def _key(name: str) -> str | None:
    """Which of the headers that are read a name means, however it is written."""
    return _READ.get(name.strip(" \t").lower())


def _check_repeatable(key: str) -> None:
    if key not in _JOINED_WITH:
        raise MalformedSipError(f"{key} more than once")


def _cseq(headers: dict[str, str], method: str | None) -> int:
    match = _CSEQ.fullmatch(headers.get("cseq", ""))
    if match is None:
        raise MalformedSipError("no CSeq with a number and a method")
    number = int(match[1])
    if number >= 2**31:  # RFC 3261 section 8.1.1.5
        raise MalformedSipError("the CSeq number is out of range")
    if method is not None and match[2] != method:
        raise MalformedSipError("the CSeq names another method than the request")
    return number


def _parameters(headers: dict[str, str], name: str) -> str:
    """What follows the address in a From or To header."""
    value = headers.get(name)
    if value is None:
        raise MalformedSipError(f"no {name.title()}")
    match = _ADDRESS.fullmatch(value)
    if match is None:
        raise MalformedSipError(f"the {name.title()} header is no address with parameters")
    return match[1]


def _tag(parameters: str) -> str | None:
    if not parameters:
        return None
    if '"' in parameters:
        parameters = _QUOTED_TEXT.sub("", parameters)
    match = _TAG.search(parameters)
    return match[1] if match else None


def _check_rest(headers: dict[str, str]) -> None:
    """What billing does not need, and what a message must not get wrong all the same."""
    via, contact = headers.get("via"), headers.get("contact")
    if via is not None:
        _check_parts("Via", via)
    if contact is not None:
        _check_parts("Contact", contact)
        if "?" in contact and "<" not in contact:
            raise MalformedSipError("the Contact header's address carries headers, and no angle brackets")
    hops, date = headers.get("max-forwards"), headers.get("date")
    if hops is not None and not _is_hops(hops.strip()):
        raise MalformedSipError("Max-Forwards is out of range")
    if date is not None and not date.rstrip().endswith("GMT"):
        raise MalformedSipError("Date is not in GMT")


def _is_hops(value: str) -> bool:
    return _NUMBER.fullmatch(value) is not None and int(value) <= _hops_max


def _check_parts(name: str, value: str) -> None:
    if _EMPTY_PART.search(value) and ('"' not in value or _PARTS.fullmatch(value) is None):
        raise MalformedSipError(f"the {name} header has empty parts")


def _check_length(announced: str, body_lines: Iterable[str]) -> None:
    """A body may be longer than announced (the rest of a packet), or left out by who captured it; never cut short.

    A text whose lines end in bare LF has been changed on its way, so its length tells nothing.
    """
    if _NUMBER.fullmatch(announced) is None:
        raise MalformedSipError("Content-Length is no number")
    length = int(announced)
    body = "\n".join(body_lines) if length else ""
    if body and len(body) < length and len(body.encode("utf-8", "surrogatepass")) < length:
        raise MalformedSipError("the body is shorter than Content-Length")

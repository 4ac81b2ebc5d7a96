"""SIP text as it comes: what RFC 4475 calls valid is read, what it calls broken is refused, and nothing else happens.

The torture messages are written here in that document's spirit, each for one of its points.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import pytest
import sipmessage
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.sip_message import MalformedSipError, SipMessage, message_length_max, read_sip_message

PLAIN: Final = (
    "INVITE sip:+12125550199@term.example.net SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.10:5080;branch=z9hG4bK1\r\n"
    "Max-Forwards: 70\r\n"
    "From: <sip:+12125550150@example.com>;tag=f1\r\n"
    "To: <sip:+12125550199@example.com>\r\n"
    "Call-ID: one@example.com\r\n"
    "CSeq: 7 INVITE\r\n"
    "Contact: <sip:gw@192.0.2.10:5080>\r\n"
    "X-Tenant: big.example.com\r\n"
    "Content-Length: 0\r\n"
    "\r\n"
)
READ: Final = SipMessage("INVITE", "one@example.com", 7, None, "big.example.com")


def with_(found: str, instead: str) -> str:
    assert found in PLAIN
    return PLAIN.replace(found, instead)


VALID: Final = {
    "any case, blanks before colons, folded lines, leading zeros": (
        (
            "INVITE sip:callee@example.com;unknownparam SIP/2.0\n"
            "TO :\n sip:callee@example.com ;   tag    = 1918181833n\n"
            'from   : "Pat Example \\\\\\""       <sip:pat@example.com>\n  ;\n  tag = 98asjd8\n'
            "MaX-fOrWaRdS: 0068\nCall-ID: tortuous.1@192.0.2.1\nContent-Length   : 0\n"
            "cseq: 0009\n  INVITE\nVia  : SIP  /   2.0\n /UDP\n    192.0.2.2;branch=390skdjuw\n"
            "s :\nNewFangledHeader:   newfangled value\n continued newfangled value\n"
            "UnknownHeaderWithUnusualValue: ;;,,;;,;\nv:  SIP  / 2.0  / TCP     192.0.2.3   ;\n  branch  =   z9hG4bK9ikj8\n"
            'm:"Quoted string \\"\\"" <sip:pat@example.com> ; newparam =\n      newvalue ;\n  secondparam ; q = 0.33\n\n'
        ),
        SipMessage("INVITE", "tortuous.1@192.0.2.1", 9, "1918181833n", None),
    ),
    "every character that a token may have": (
        (
            "!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
            ":&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0\r\n"
            "Via: SIP/2.0/TCP host1.example.com;branch=z9hG4bK-.!%66*_+`'~\r\n"
            'To: "BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f" <sip:1_unusual.URI~(to-be!sure)&isn\'t+it$/crazy?,/;;*@example.com>\r\n'
            "From: token1~` token2'+_ token3*%!.- <sip:mundane@example.com>"
            ";fromParam''~+*_!.-%=\"\u0440\u0430\u0431\u043e\u0442\";tag=_token~1'+`*%!-.\r\n"
            "Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{\r\n"
            "CSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~\r\nMax-Forwards: 255\r\n\r\n"
        ),
        SipMessage(
            "!interesting-Method0123456789_*+`.%indeed'~",
            "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{",
            139122385,
            None,
            None,
        ),
    ),
    "escapes in the address": (
        with_("sip:+12125550199@term", "sip:sips%3Auser%40example.com@term"),
        READ,
    ),
    "an escaped NUL in the addresses": (
        PLAIN.replace("sip:+12125550199@", "sip:null-%00-null@"),
        READ,
    ),
    "a body of several parts, binary": (
        with_(
            "Content-Length: 0\r\n\r\n",
            "Content-Length: 26\r\n\r\n--x\r\n\x00\x01\ufffd\r\n i: two\r\n\r\n--x--",
        ),
        READ,
    ),
    "addresses of schemes that nobody knows": (
        PLAIN.replace(
            "sip:+12125550199@term.example.net", "nobodyKnowsThisScheme:totallyopaquecontent"
        ).replace("To: <sip:", "To: <isbn:"),
        READ,
    ),
    "every compact form": (
        PLAIN.replace("Via", "v")
        .replace("From", "f")
        .replace("To:", "t:")
        .replace("Call-ID", "I")
        .replace("Contact", "M")
        .replace("Content-Length", "L"),
        READ,
    ),
    "a colon in the next line": (with_("Call-ID:", "Call-ID\r\n :"), READ),
    "a thousand blanks before a colon": (with_("Call-ID:", "Call-ID" + " \t" * 500 + ":"), READ),
    "a method that looks escaped is another method": (
        PLAIN.replace("INVITE", "RE%47IST%45R"),
        SipMessage("RE%47IST%45R", "one@example.com", 7, None, "big.example.com"),
    ),
    "no blank between name and address": (
        with_("From: <sip", "From: Pat Example<sip"),
        READ,
    ),
    "very long values": (
        with_("Contact: ", "Contact: " + "<sip:" + "a" * 8_000 + "@example.com>, ").replace(
            "tag=f1", "tag=" + "f" * 8_000
        ),
        READ,
    ),
    "another message behind this one": (PLAIN + PLAIN.replace("one@", "two@"), READ),
    "semicolons in the user part": (
        with_("sip:+12125550199@term", "sip:user;par=u%40example.net@term"),
        READ,
    ),
    "many transports": (
        with_(
            "Via: ",
            "Via: SIP/2.0/SCTP t2.example.com\r\nVia: SIP/2.0/TLS [2001:db8::9]:5061;branch=z9hG4bK2\r\nVia: ",
        ),
        READ,
    ),
    "a response with an unusual reason": (
        with_(
            "INVITE sip:+12125550199@term.example.net SIP/2.0",
            "SIP/2.0 200 = 2**3 * 5**2 \u043d\u043e \u0441\u0442\u043e \u0434\u0435\u0432\u044f\u043d\u043e\u0441\u0442\u043e",
        ),
        SipMessage(None, "one@example.com", 7, None, "big.example.com"),
    ),
    "a response with an empty reason": (
        with_("INVITE sip:+12125550199@term.example.net SIP/2.0", "SIP/2.0 100 "),
        SipMessage(None, "one@example.com", 7, None, "big.example.com"),
    ),
    "an address of another scheme": (with_("sip:+12125550199@term.example.net", "urn:service:sos"), READ),
    "a telephone address": (with_("sip:+12125550199@term.example.net", "tel:+1-212-555-0199;npdi"), READ),
    "an IPv6 host": (with_("sip:+12125550199@term.example.net", "sip:+12125550199@[2001:db8::1]:5060"), READ),
    "no hops left": (with_("Max-Forwards: 70", "Max-Forwards: 0"), READ),
    "as in RFC 2543": (
        with_("Max-Forwards: 70\r\n", "").replace(";branch=z9hG4bK1", "").replace(";tag=f1", ""),
        READ,
    ),
    "no body and no empty line": (PLAIN.rstrip("\r\n"), READ),
    "a body left out by who captured it": (with_("Content-Length: 0", "Content-Length: 319"), READ),
    "a body in bytes, not characters": (
        with_("Content-Length: 0\r\n\r\n", "Content-Length: 6\r\n\r\n\u00e9\u00e9\u00e9"),
        READ,
    ),
    "a date": (with_("CSeq", "Date: Sat, 10 Oct 2026 12:00:00 GMT\r\nCSeq"), READ),
    "empty lines before": ("\r\n\r\n\r\n" + PLAIN, READ),
    "bare LF": (PLAIN.replace("\r\n", "\n"), READ),
    "a quoted parameter that looks like a tag": (
        with_("To: <sip:+12125550199@example.com>", 'To: <sip:+12125550199@example.com>;x=";tag=no"'),
        READ,
    ),
}

BROKEN: Final = {
    "separators without anything between": with_(";branch=z9hG4bK1", ";;,;,,"),
    "the same in Contact": with_("Contact: <sip:gw@192.0.2.10:5080>", 'Contact: "" <sip:gw@192.0.2.10>;;;;'),
    "a body shorter than announced": with_(
        "Content-Length: 0\r\n\r\n", "Content-Length: 9999\r\n\r\nv=0\r\n"
    ),
    "a negative length": with_("Content-Length: 0", "Content-Length: -999"),
    "a CSeq number out of range": with_("CSeq: 7", "CSeq: 36893488147419103232"),
    "a CSeq number of 2**31": with_("CSeq: 7", "CSeq: 2147483648"),
    "more hops than there are": with_("Max-Forwards: 70", "Max-Forwards: 300"),
    "an unterminated quotation": with_(
        "To: <sip:+12125550199@example.com>", 'To: "Mr. P. User <sip:p.user@example.com>'
    ),
    "angle brackets around the request's address": with_(
        "INVITE sip:+12125550199@term.example.net", "INVITE <sip:+12125550199@term.example.net>"
    ),
    "a blank in the request's address": with_("term.example.net SIP", "term.example.net; lr SIP"),
    "blanks in the first line": with_("INVITE sip", "INVITE  sip"),
    "blanks after the first line": with_(" SIP/2.0\r\nVia", " SIP/2.0  \r\nVia"),
    "headers in the request's address": with_(
        "term.example.net SIP", "term.example.net?Route=%3Csip:x%3E SIP"
    ),
    "a date in another zone": with_("CSeq", "Date: Fri, 01 Jan 2010 16:00:00 EST\r\nCSeq"),
    "a Contact with headers and no brackets": with_(
        "Contact: <sip:gw@192.0.2.10:5080>", "Contact: sip:gw@192.0.2.10?Route=%3Csip:x%3E"
    ),
    "blanks within an address": with_("To: <sip:+1", "To: < sip:+1"),
    "a comma in a name without quotation marks": with_("From: <sip", "From: Example, Pat <sip"),
    "another version": with_("SIP/2.0\r\nVia", "SIP/7.0\r\nVia"),
    "two methods": with_("INVITE sip", "OPTIONS sip"),
    "two methods, one unknown": with_("INVITE sip", "NEWMETHOD sip"),
    "a response code that fits nowhere": with_(
        "INVITE sip:+12125550199@term.example.net SIP/2.0", "SIP/2.0 4294967301 better not break the receiver"
    ),
    "no Call-ID": with_("Call-ID: one@example.com\r\n", ""),
    "an empty Call-ID": with_("Call-ID: one@example.com", "Call-ID: "),
    "no From": with_("From: <sip:+12125550150@example.com>;tag=f1\r\n", ""),
    "no To": with_("To: <sip:+12125550199@example.com>\r\n", ""),
    "no CSeq": with_("CSeq: 7 INVITE\r\n", ""),
    "two Call-IDs": with_("CSeq", "i: two@example.com\r\nCSeq"),
    "two CSeqs": with_("CSeq", "CSeq: 8 INVITE\r\nCSeq"),
    "two Tos": with_("CSeq", "t: <sip:other@example.com>\r\nCSeq"),
    "two lengths": with_("CSeq", "l: 0\r\nCSeq"),
    "a name that goes on in the next line": with_("INVITE sip:", "INVITE\r\n sip:"),
    "a name of a header without a colon": PLAIN.replace("\r\n", "\n").replace("CSeq", "Contact\nCSeq"),
    "a line that is no header": with_("CSeq", "hello\r\nCSeq"),
    "digits of another script": with_("CSeq: 7", "CSeq: \u0667"),
    "nothing": "",
    "a keep-alive": "\r\n\r\n",
    "too long": PLAIN + "x" * message_length_max,
}


@pytest.mark.parametrize("point", VALID)
def test_what_is_valid_is_read(point: str) -> None:
    text, expected = VALID[point]
    assert read_sip_message(text) == expected


@pytest.mark.parametrize("point", BROKEN)
def test_what_is_broken_is_refused(point: str) -> None:
    with pytest.raises(MalformedSipError):
        read_sip_message(BROKEN[point])


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("X-Tenant: a\r\nX-Tenant: b", "a, b"),
        ("X-Tenant: a\r\nx-tenant : a\r\nX-TENANT:", "a"),
        ("X-Tenant:\r\n\ta", "a"),
        ("X-Tenant:", None),
        ("X-accountcode: a", None),
        ("X-Tenant\u00a0: a", None),
        ("X-Unread: b\r\n X-Tenant: c\r\nX-Tenant: a", "a"),
        ("X-Tenant: a\r\n  b\r\n\tc", "a b c"),
        ("X-Tenant: a\x01b", "a\ufffdb"),
        ("X-Tenant: a\ud800", "a\ufffd"),
    ],
)
def test_the_tenant_header_is_read_however_it_is_sent(header: str, named: str | None) -> None:
    assert read_sip_message(with_("X-Tenant: big.example.com", header)).x_tenant == named


HOSTILE: Final = {
    "escaped quotation marks": '"\\' * 60_000,
    "quotation marks": '"' * 120_000,
    "empty parameters": "; " * 60_000,
    "a blank parameter": ";" + " " * 120_000,
    "angle brackets": "<" * 120_000,
    "folds": "\r\n " * 60_000,
    "headers": "a:\r\n" * 40_000,
    "repeated headers": "\r\nv:a\r\nm:<a:b>\r\nx-tenant:a" * 7_000 + "\r\n",
    "folded headers": "\r\nx-tenant:a\r\n b" * 12_000 + "\r\n",
    "quoted separators": '";' * 60_000,
    "separators": ", ;" * 60_000,
}


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("place", ["Via: ", "From: ", "To: ", "Contact: ", "CSeq: ", "X-Tenant: ", "INVITE "])
def test_hostile_text_takes_no_longer_than_its_length(hostile: str, place: str) -> None:
    """Were a pattern quadratic, one of these would take minutes."""
    with suppress(MalformedSipError):
        read_sip_message(PLAIN.replace(place, place + HOSTILE[hostile], 1))


@given(
    st.text(st.sampled_from('INVITE sip:@<>;=, \r\n\t"\\tag/2.0:\x00\ufffd'), max_size=200),
    st.integers(0, 400),
)
@settings(deadline=None)
def test_any_text_anywhere_is_read_or_refused(noise: str, at: int) -> None:
    for text in (noise, PLAIN[:at] + noise + PLAIN[at:]):
        try:
            message = read_sip_message(text)
        except MalformedSipError:
            continue
        assert message.call_id
        assert 0 <= message.cseq < 2**31


_word = st.text(st.sampled_from("abcXYZ019-._~"), min_size=1, max_size=20)


@given(
    method=st.sampled_from(["INVITE", "REGISTER", "BYE", "OPTIONS"]),
    user=_word,
    host=st.sampled_from(["example.com", "192.0.2.1", "[2001:db8::1]:5060"]),
    name=st.sampled_from(["", '"Pat \\"P\\" Example" ', "Pat "]),
    call_id=_word,
    cseq=st.integers(0, 2**31 - 1),
    to_tag=st.none() | _word,
    tenant=st.none() | _word,
    compact=st.booleans(),
)
@settings(deadline=None)
def test_an_independent_parser_reads_the_same(
    *,
    method: str,
    user: str,
    host: str,
    name: str,
    call_id: str,
    cseq: int,
    to_tag: str | None,
    tenant: str | None,
    compact: bool,
) -> None:
    lines = [
        f"{method} sip:{user}@{host} SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1",
        f"{'f' if compact else 'From'}: {name}<sip:{user}@{host}>;tag=f1",
        f"{'t' if compact else 'To'}: {name}<sip:{user}@{host}>" + (f";tag={to_tag}" if to_tag else ""),
        f"{'i' if compact else 'Call-ID'}: {call_id}",
        f"CSeq: {cseq} {method}",
        *([f"X-Tenant: {tenant}"] if tenant else []),
        "Content-Length: 0",
    ]
    text = "\r\n".join([*lines, "", ""])
    theirs = sipmessage.Message.parse(text.encode())
    assert isinstance(theirs, sipmessage.Request)
    to = theirs.to_address
    assert to is not None
    assert theirs.cseq is not None
    assert read_sip_message(text) == SipMessage(
        theirs.method,
        str(theirs.call_id),
        theirs.cseq.sequence,
        to.parameters.get("tag"),
        theirs.headers.get("X-Tenant"),
    )

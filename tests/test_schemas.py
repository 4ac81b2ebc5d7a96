"""What the words mean at the edge: records, SIP messages, numbers, addresses, months and money."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from ipaddress import IPv4Network, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decoded import Ignored, Rejected
from schemas.formats.canonical import decode_call, decode_sip
from schemas.money import ledger_cost, minor_units, plain
from schemas.network import address, network
from schemas.numbers import dialled, e164
from schemas.periods import Period, utc_text
from schemas.records import CallRecord, SipEvent
from schemas.sip_message import MalformedSipError, read_sip_message
from tests.world import inbound, invite, outbound, utc

OCTOBER = utc("2026-10-10 12:00")
CALL = inbound("a", "+12125550101", OCTOBER)
INVITE = (
    "INVITE sip:+12125550199@example.com SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n"
    "From: <sip:+12125550150@example.com>;tag=1\r\n"
    "To: <sip:+12125550199@example.com>\r\n"
    "Call-ID: one@example.com\r\n"
    "CSeq: 102 INVITE\r\n"
    "X-Tenant: bigcustomer.mypbx.com\r\n"
    "\r\n"
    "X-Tenant: body.example.com\r\n"
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def call(**fields: Any) -> object:
    return decode_call(json.dumps(CALL | fields).encode())


def detail(decoded: object) -> str:
    assert isinstance(decoded, Rejected), decoded
    assert decoded.reason == "unreadable"
    return decoded.detail


@given(st.binary())
def test_no_bytes_make_the_decoders_raise(value: bytes) -> None:
    for decode in (decode_call, decode_sip):
        assert isinstance(decode(value), Rejected)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys([*CALL, "x_tenant", "source_ip", "ended_at"], JSON)))
def test_a_record_with_anything_in_its_fields_is_a_record_or_rejected_with_the_field_named(
    fields: dict[str, Any],
) -> None:
    decoded = decode_call(json.dumps(CALL | fields).encode())
    assert (
        isinstance(decoded, CallRecord)
        or any(name in detail(decoded) for name in fields)
        or "JSON" in detail(decoded)
    )


@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys([*invite("a", "192.0.2.1", OCTOBER), "raw", "to_tag"], JSON)
    )
)
def test_a_sip_event_with_anything_in_its_fields_does_not_raise(fields: dict[str, Any]) -> None:
    value = json.dumps(invite("a", "192.0.2.1", OCTOBER) | fields).encode()
    assert isinstance(decode_sip(value), SipEvent | Ignored | Rejected)


@given(st.text())
def test_no_text_makes_the_sip_scanner_raise_anything_else(text: str) -> None:
    with suppress(MalformedSipError):
        read_sip_message(text)


@pytest.mark.parametrize("cost", [0.0255, 1, True, "1e2", "NaN", "Infinity", "1,5", "0.1234567890123", ""])
def test_money_that_is_not_plain_digits_in_a_string_is_rejected(cost: object) -> None:
    assert "cost" in detail(call(cost=cost))


def test_money_is_exact() -> None:
    decoded = call(cost="0.0255", ignored_field={"deep": [1, 2]})
    assert isinstance(decoded, CallRecord)
    assert decoded.cost == Decimal("0.0255")


@pytest.mark.parametrize(
    "written", ["2026-10-10T12:00:00Z", "2026-10-10T14:00:00+02:00", "2026-10-09T22:00:00.000-14:00"]
)
def test_times_are_utc_whatever_the_zone_they_were_written_in(written: str) -> None:
    decoded = call(started_at=written)
    assert isinstance(decoded, CallRecord)
    assert decoded.started_at == OCTOBER
    assert utc_text(decoded.started_at) == "2026-10-10T12:00:00.000000Z"
    assert Period.of(decoded.started_at) == Period(2026, 10)


def test_a_time_without_a_zone_is_rejected() -> None:
    assert "started_at" in detail(call(started_at="2026-10-10T12:00:00"))


@pytest.mark.parametrize("missing", ["id", "switch", "service", "direction", "started_at", "to_number"])
def test_a_missing_field_is_named(missing: str) -> None:
    value = {name: fact for name, fact in CALL.items() if name != missing}
    assert missing in detail(decode_call(json.dumps(value).encode()))


def test_an_outbound_record_needs_a_source_or_a_call_id() -> None:
    record = outbound("a", None, OCTOBER, call_id=None)
    assert "source_ip or call_id" in detail(decode_call(json.dumps(record).encode()))


def test_what_is_wrong_is_said_without_the_value() -> None:
    assert "secret" not in detail(call(source_ip="secret.example.com", cost="secret"))


def test_a_mapped_address_is_the_address_it_maps() -> None:
    decoded = decode_call(json.dumps(outbound("a", "::ffff:192.0.2.1", OCTOBER)).encode())
    assert isinstance(decoded, CallRecord)
    assert decoded.source_ip == "192.0.2.1"


@given(st.ip_addresses())
def test_an_address_is_read_back_as_itself(one: Any) -> None:
    assert address(f"[{one}]" if one.version == 6 else str(one)) == str(
        getattr(one, "ipv4_mapped", None) or one
    )


@pytest.mark.parametrize("text", ["192.0.2.1/24", "192.0.2.300", "fe80::1%eth0", "", "192.0.2"])
def test_what_is_no_address_or_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whichever says so)
        network(text)
    with pytest.raises(ValueError):  # noqa: PT011 (same)
        address(text)


def test_a_mapped_network_is_the_network_it_maps() -> None:
    assert network("::ffff:192.0.2.0/120") == IPv4Network("192.0.2.0/24")
    assert network("2001:db8::1").num_addresses == 1
    assert ip_address("2001:db8::1") in network("2001:db8::/32")


def test_a_message_is_read() -> None:
    message = read_sip_message(INVITE)
    assert (message.method, message.call_id, message.cseq) == ("INVITE", "one@example.com", 102)
    assert (message.to_tag, message.x_tenant) == (None, "bigcustomer.mypbx.com")


@pytest.mark.parametrize(
    ("found", "instead"),
    [
        ("X-Tenant: big", "x-tEnAnT: big"),
        ("X-Tenant: big", "X-Tenant:big"),
        ("X-Tenant: big", "X-Tenant \t : big"),
        ("X-Tenant: big", "X-Tenant:\r\n  big"),
        ("X-Tenant: big", "X-Tenant:\r\n\tbig"),
        ("mypbx.com\r\n", "mypbx.com  \r\n"),
        ("Call-ID", "i"),
        ("Call-ID", "I "),
        ("To:", "t:"),
        ("\r\n", "\n"),
        ("X-Tenant: bigcustomer.mypbx.com\r\n", "X-Tenant: bigcustomer.mypbx.com\r\n" * 2),
        ("X-Tenant: bigcustomer.mypbx.com\r\n", "X-Tenant: bigcustomer.mypbx.com\r\nX-Tenant:\r\n"),
        ("INVITE sip", "\r\n\r\nINVITE sip"),
    ],
)
def test_a_header_may_be_written_in_many_ways(found: str, instead: str) -> None:
    assert found in INVITE
    assert read_sip_message(INVITE.replace(found, instead)) == read_sip_message(INVITE)


def test_a_header_sent_twice_with_different_names_names_neither() -> None:
    twice = INVITE.replace("Call-ID", "X-Tenant: other.example.com\r\nCall-ID")
    assert read_sip_message(twice).x_tenant == "other.example.com, bigcustomer.mypbx.com"


@pytest.mark.parametrize(
    ("to", "tag"),
    [
        ("<sip:a@example.com>;tag=77", "77"),
        ("<sip:a@example.com> ; TAG = 77", "77"),
        ('"x;tag=1" <sip:a@example.com;tag=2>', None),
        ("sip:a@example.com;tag=77", "77"),
        ("<sip:a@example.com>", None),
    ],
)
def test_the_to_tag_is_the_headers_and_not_the_addresss(to: str, tag: str | None) -> None:
    assert read_sip_message(INVITE.replace("<sip:+12125550199@example.com>\r\n", f"{to}\r\n")).to_tag == tag


@pytest.mark.parametrize(
    ("found", "instead", "outcome"),
    [
        ("INVITE", "REGISTER", Ignored("sip_not_invite")),
        (INVITE.split("\r\n", maxsplit=1)[0], "SIP/2.0 200 OK", Ignored("sip_response")),
        ("@example.com>\r\nCall", "@example.com>;tag=9\r\nCall", Ignored("sip_not_initial")),
        ("Call-ID: one@example.com\r\n", "", Rejected("unreadable", "raw: no Call-ID")),
        ("CSeq: 102 INVITE", "CSeq: many", Rejected("unreadable", "raw: no CSeq with a number and a method")),
    ],
)
def test_only_an_initial_invite_is_kept(found: str, instead: str, outcome: object) -> None:
    assert found in INVITE
    envelope = {"switch": "sbc-1", "observed_at": OCTOBER.isoformat(), "source_ip": "192.0.2.1"}
    raw = INVITE.replace(found, instead)
    assert decode_sip(json.dumps(envelope | {"raw": raw}).encode()) == outcome
    assert isinstance(decode_sip(json.dumps(envelope | {"raw": INVITE}).encode()), SipEvent)


@pytest.mark.parametrize(
    ("text", "country", "number"),
    [
        ("+12125550100", "US", "+12125550100"),
        ("(212) 555-0100", "US", "+12125550100"),
        ("1-212-555-0100", "US", "+12125550100"),
        ("+1.212.555.0100", "GB", "+12125550100"),
        ("020 7183 8750", "GB", "+442071838750"),
        ("011 44 20 7183 8750", "US", "+442071838750"),
        ("911", "US", "911"),
        ("933", "US", "933"),
        ("112", "GB", "112"),
        ("*67", "US", "*67"),
        ("alice", "US", "alice"),
        (" alice ", "US", "alice"),
    ],
)
def test_a_dialled_number_has_one_form(text: str, country: str, number: str) -> None:
    assert dialled(text, country) == number
    assert dialled(number, country) == number


@given(st.text(max_size=70), st.sampled_from(["US", "GB", "DE"]))
def test_any_dialled_text_is_read_without_raising_and_settles(text: str, country: str) -> None:
    once = dialled(text, country)
    assert dialled(once, country) == once


@pytest.mark.parametrize("text", ["911", "alice", "+1212", "", "+0123456789"])
def test_a_short_code_or_a_name_is_nobodys_asset(text: str) -> None:
    with pytest.raises(ValueError, match="not a possible phone number"):
        e164(text, "US")


@given(st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)))
def test_every_instant_is_in_one_month(naive: datetime) -> None:
    moment = naive.replace(tzinfo=UTC)
    month = Period.of(moment)
    assert month.starts_at <= moment < month.ends_at
    assert month.ends_at == month.next().starts_at
    assert month.plus(13).plus(-13) == month == Period.parse(str(month))
    assert month.last_day + timedelta(days=1) == month.next().first_day


def test_months_have_the_days_they_have() -> None:
    days = {str(month): month.last_day.day for month in map(Period(2028, 1).plus, range(4))}
    assert days == {"2028-01": 31, "2028-02": 29, "2028-03": 31, "2028-04": 30}
    assert Period(2026, 2).last_day == date(2026, 2, 28)


@pytest.mark.parametrize("text", ["2026-13", "2026-00", "2026-1", "26-10", "October", "", "2026-10-01"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="month"):
        Period.parse(text)


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [
        ("1.005", "USD", 101),
        ("1.0049999", "USD", 100),
        ("-1.005", "USD", -101),
        ("1.5", "JPY", 2),
        ("1.2345", "KWD", 1235),
    ],
)
def test_half_a_smallest_unit_is_rounded_away_from_zero(amount: str, currency: str, units: int) -> None:
    assert minor_units(Decimal(amount), currency) == units


@given(st.decimals(-(10**9), 10**9, places=12))
def test_a_cost_is_rounded_once_to_a_millionth(amount: Decimal) -> None:
    rounded = ledger_cost(amount)
    assert abs(rounded - amount) <= Decimal("0.0000005")
    assert ledger_cost(rounded) == rounded == amount.quantize(Decimal("0.000001"), ROUND_HALF_UP)
    assert Decimal(plain(rounded)) == rounded
    assert "E" not in plain(rounded)

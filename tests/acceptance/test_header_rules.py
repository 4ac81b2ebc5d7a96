"""What becomes of an `X-Tenant` header, however it is written: each has one outcome, with its reason (A4, A5)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest

from rollup.unattributed_store import unattributed
from tests.world import World, invite, outbound, utc

NOON = utc("2026-10-10 12:00")
LATER = NOON + timedelta(minutes=10)
BIG, SIBLING, THEIRS = "big.example.com", "sibling.example.com", "theirs.example.com"
SHARED_IP, DEFAULTED_IP, DEDICATED_IP = "198.51.100.7", "198.51.100.8", "192.0.2.1"
NOBODY = (None, "unknown_tenant")
NO_HEADER = (None, "no_tenant_header")
FOUND = (BIG, None)


@pytest.fixture
def carrier(world: World) -> World:
    """A shared IP, one with a default tenant and a dedicated one of `reseller`; another account with its own tenant."""
    reseller = world.account()
    world.tenant(reseller, BIG)
    world.ip(SHARED_IP, reseller)
    world.ip(DEFAULTED_IP, reseller, default=world.tenant(reseller, "default.example.com"))
    world.ip(DEDICATED_IP, reseller, world.tenant(reseller, SIBLING))
    world.tenant(world.account("rival"), THEIRS)
    return world.run()


def by_record(world: World, header: str | None, source: str = SHARED_IP) -> tuple[str | None, str | None]:
    """Whose a call is whose own record carries the header."""
    world.receive(outbound("a", source, NOON, x_tenant=header), at=LATER)
    return _decided(world)


def by_headers(
    world: World, headers: dict[str, Any], source: str = SHARED_IP
) -> tuple[str | None, str | None]:
    """Whose a call is whose INVITE carries the headers."""
    return _by_sip(world, {**invite("one@example.com", source, NOON), "headers": headers}, source)


def by_text(world: World, lines: str, source: str = SHARED_IP) -> tuple[str | None, str | None]:
    """Whose a call is whose INVITE, as text, has these header lines."""
    raw = (
        f"INVITE sip:x@example.com SIP/2.0\r\nCall-ID: one@example.com\r\nCSeq: 1 INVITE\r\n"
        f"From: <sip:y@example.com>;tag=1\r\nTo: <sip:x@example.com>\r\n{lines}\r\n\r\n"
    )
    message = {"switch": "sbc-1", "observed_at": NOON.isoformat(), "source_ip": source, "raw": raw}
    return _by_sip(world, message, source)


def _by_sip(world: World, message: dict[str, Any] | bytes, source: str) -> tuple[str | None, str | None]:
    world.receive(message, at=NOON, topic="sip.raw")
    world.receive(outbound("a", source, NOON, call_id="one@example.com"), at=LATER)
    return _decided(world)


def _decided(world: World) -> tuple[str | None, str | None]:
    world.receive(None, at=LATER + timedelta(hours=1), topic="sip.raw")
    world.resolve()
    [row] = world.ledger()
    assert row.account == "reseller"
    return row.tenant, row.reason


@pytest.mark.parametrize("empty", [None, "", " ", "\t"])
def test_an_empty_header_is_no_header(carrier: World, empty: str | None) -> None:
    assert by_record(carrier, empty) == NO_HEADER


@pytest.mark.parametrize("lines", ["X-Tenant:", "X-Tenant:  \t", "X-Tenant:\r\nX-Tenant: "])
def test_an_empty_header_of_an_invite_is_no_header(carrier: World, lines: str) -> None:
    assert by_text(carrier, lines) == NO_HEADER


def test_without_a_header_the_default_tenant_pays(carrier: World) -> None:
    assert by_text(carrier, "X-Tenant: ", DEFAULTED_IP) == ("default.example.com", None)


def test_a_header_repeated_with_one_value_says_it_once(carrier: World) -> None:
    assert by_text(carrier, f"X-Tenant: {BIG}\r\nX-Tenant: {BIG}") == FOUND


@pytest.mark.parametrize("second", [SIBLING, THEIRS, BIG.upper()])
def test_a_header_repeated_with_two_values_names_nobody_not_even_the_default(
    carrier: World, second: str
) -> None:
    assert by_text(carrier, f"X-Tenant: {BIG}\r\nX-Tenant: {second}", DEFAULTED_IP) == NOBODY
    with carrier.engine.connect() as connection:
        [listed] = unattributed(connection)
    assert listed.named == f"{BIG}, {second}"


@pytest.mark.parametrize("values", [[BIG, BIG], [BIG], ["", BIG]])
def test_a_repeated_header_in_fields_is_read_alike(carrier: World, values: list[str]) -> None:
    assert by_headers(carrier, {"X-Tenant": values}) == FOUND


def test_two_spellings_of_one_header_are_one_header_sent_twice(carrier: World) -> None:
    assert by_headers(carrier, {"X-Tenant": BIG, "x-tenant": SIBLING}) == NOBODY


@pytest.mark.parametrize("name", ["X-Tenant", "x-tenant", "X-TENANT", "x-TeNaNt"])
def test_the_headers_name_is_read_in_any_case(carrier: World, name: str) -> None:
    assert by_text(carrier, f"{name}: {BIG}") == FOUND


@pytest.mark.parametrize("written", [BIG.upper(), BIG.title()])
def test_the_headers_value_must_match_its_case(carrier: World, written: str) -> None:
    assert by_text(carrier, f"X-Tenant: {written}", DEFAULTED_IP) == NOBODY


@pytest.mark.parametrize("fold", ["\r\n ", "\r\n\t", "\n   ", "\r\n \r\n "])
def test_a_folded_header_is_read_as_one_line(carrier: World, fold: str) -> None:
    assert by_text(carrier, f"X-Tenant:{fold}{BIG}") == FOUND


def test_a_name_that_is_folded_in_its_middle_is_another_name(carrier: World) -> None:
    assert by_text(carrier, f"X-Tenant: {BIG[:5]}\r\n {BIG[5:]}") == NOBODY


@pytest.mark.parametrize("padded", [f" {BIG}", f"{BIG}  ", f"\t{BIG}\t "])
def test_blanks_around_the_value_do_not_matter(carrier: World, padded: str) -> None:
    assert by_record(carrier, padded) == FOUND


@pytest.mark.parametrize("line", [f"X-Tenant :{BIG}", f"X-Tenant \t:  {BIG} \t"])
def test_blanks_before_the_colon_do_not_matter(carrier: World, line: str) -> None:
    assert by_text(carrier, line) == FOUND


@pytest.mark.parametrize("inside", ["big .example.com", "big.example.com x", f'"{BIG}"'])
def test_blanks_or_quotes_that_belong_to_the_value_make_it_another_name(carrier: World, inside: str) -> None:
    assert by_record(carrier, inside) == NOBODY


@pytest.mark.parametrize("value", ["größe.example.com", "caf\ufffd.example.com", "\u202e" + BIG, "NON-UTF8"])
def test_a_value_outside_ascii_or_replaced_by_the_switch_names_nobody(carrier: World, value: str) -> None:
    assert by_record(carrier, value, DEFAULTED_IP) == NOBODY


@pytest.mark.parametrize(
    "broken", [b"caf\xe9", b"\xff\xfe", b"\xed\xa0\x80"], ids=["latin-1", "no text", "half a surrogate"]
)
def test_a_record_that_is_not_utf_8_is_quarantined_with_its_bytes(carrier: World, broken: bytes) -> None:
    record = outbound("a", SHARED_IP, NOON, x_tenant="HERE")
    value = orjson.dumps(record).replace(b"HERE", broken)
    assert carrier.receive(value, at=LATER) == {("quarantined", "unreadable"): 1}
    [kept] = carrier.query("select reason, value from quarantine")
    assert bytes(kept.value) == value


def test_an_invite_that_is_not_utf_8_is_quarantined_and_its_call_has_no_header(carrier: World) -> None:
    message = orjson.dumps({**invite("one@example.com", SHARED_IP, NOON), "headers": {"X-Tenant": "HERE"}})
    assert _by_sip(carrier, message.replace(b"HERE", b"caf\xe9"), SHARED_IP) == NO_HEADER
    assert carrier.outcomes()["quarantined", "unreadable"] == 1


@pytest.mark.parametrize("unknown", ["nobody.example.com", THEIRS, "ended.example.com", "later.example.com"])
@pytest.mark.parametrize("source", [SHARED_IP, DEFAULTED_IP])
def test_an_unknown_name_is_nobodys_and_never_the_defaults(world: World, unknown: str, source: str) -> None:
    reseller = world.account()
    world.tenant(reseller, "ended.example.com", NOON - timedelta(days=9), NOON)
    world.tenant(reseller, "later.example.com", NOON + timedelta(microseconds=1))
    world.ip(SHARED_IP, reseller)
    world.ip(DEFAULTED_IP, reseller, default=world.tenant(reseller, "default.example.com"))
    world.tenant(world.account("rival"), THEIRS)
    world.run()
    assert by_record(world, unknown, source) == NOBODY


@pytest.mark.parametrize("spoofed", [BIG, THEIRS, "nobody.example.com", SIBLING.upper()])
def test_a_spoofed_header_from_a_dedicated_ip_moves_nothing_and_is_counted_and_listed(
    carrier: World, spoofed: str
) -> None:
    carrier.receive(*(outbound(str(n), DEDICATED_IP, NOON, x_tenant=spoofed) for n in range(3)), at=LATER)
    assert {(row.tenant, row.rule, row.header_ignored) for row in carrier.ledger()} == {
        (SIBLING, "A4", spoofed)
    }
    with carrier.engine.connect() as connection:
        [listed] = unattributed(connection)
    assert (listed.reason, listed.account, listed.asset, listed.named, listed.records) == (
        "header_ignored",
        "reseller",
        DEDICATED_IP,
        spoofed,
        3,
    )


@pytest.mark.parametrize("agreeing", [SIBLING, f" {SIBLING} ", "", None])
def test_a_header_that_agrees_with_its_dedicated_ip_is_no_news(carrier: World, agreeing: str | None) -> None:
    assert by_record(carrier, agreeing, DEDICATED_IP) == (SIBLING, None)
    with carrier.engine.connect() as connection:
        assert unattributed(connection) == ()


def test_a_header_of_more_than_one_value_in_a_record_is_no_record(carrier: World) -> None:
    assert carrier.receive(outbound("a", SHARED_IP, NOON, x_tenant=[BIG]), at=LATER) == {
        ("quarantined", "unreadable"): 1
    }


@pytest.mark.parametrize("long", ["x" * 1024, "x" * 1025])
def test_a_header_of_great_length_names_nobody_or_makes_the_record_unreadable(
    carrier: World, long: str
) -> None:
    [outcome] = carrier.receive(outbound("a", SHARED_IP, NOON, x_tenant=long), at=LATER)
    assert outcome == (("posted", "") if len(long) == 1024 else ("quarantined", "unreadable"))

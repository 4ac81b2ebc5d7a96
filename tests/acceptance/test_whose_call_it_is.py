"""Attribution from raw records to the ledger, in the customer's words."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest

from rollup.unattributed_store import unattributed
from schemas.periods import Period
from tests.world import World, inbound, invite, outbound, utc

OCTOBER = utc("2026-10-10 12:00")
LATER = OCTOBER + timedelta(minutes=10)
BIG = "bigcustomer.mypbx.com"
SHARED_IP = "198.51.100.7"

DOCUMENTED_INVITE = "\r\n".join(
    [
        "INVITE sip:+12125550199@term.example.net SIP/2.0",
        "Via: SIP/2.0/UDP 198.51.100.7:5080;rport;branch=z9hG4bKexample",
        "Max-Forwards: 69",
        'From: "Big Customer" <sip:+12125550150@198.51.100.7>;tag=exampletag',
        "To: <sip:+12125550199@term.example.net>",
        "Call-ID: 9934a1ef-08c3-1238-9ba8-022c7a011cae",
        "CSeq: 5676555 INVITE",
        "Contact: <sip:gw@198.51.100.7:5080;transport=udp>",
        "Content-Type: application/sdp",
        "X-accountcode: someone.else.example.com",
        f"X-Tenant: {BIG}",
        "Content-Length: 0",
        "",
        "",
    ]
)


def raw_invite(text: str) -> dict[str, str]:
    return {"switch": "sbc-1", "observed_at": OCTOBER.isoformat(), "source_ip": SHARED_IP, "raw": text}


@pytest.fixture
def reseller(world: World) -> int:
    return world.account()


def test_the_documented_invite_attributes_its_call_from_a_shared_ip(world: World, reseller: int) -> None:
    world.tenant(reseller, BIG)
    world.ip(SHARED_IP, reseller)  # an account's IP that was never given a tenant
    world.run()
    world.receive(raw_invite(DOCUMENTED_INVITE), at=OCTOBER, topic="sip.raw")
    call = outbound("a", SHARED_IP, OCTOBER, call_id="9934a1ef-08c3-1238-9ba8-022c7a011cae")
    assert world.receive(call, at=LATER) == {("held", "sip_context"): 1}
    world.resolve()
    [row] = world.ledger()
    assert (row.tenant, row.rule, row.reason) == (BIG, "A5", None)
    assert world.outcomes() == {("context", ""): 1, ("posted", ""): 1}


def test_an_accountcode_without_x_tenant_is_not_used(world: World, reseller: int) -> None:
    world.tenant(reseller, "someone.else.example.com")
    world.ip(SHARED_IP, reseller)
    world.run()
    bare = DOCUMENTED_INVITE.replace(f"X-Tenant: {BIG}\r\n", "")
    world.receive(raw_invite(bare), at=OCTOBER, topic="sip.raw")
    call = outbound("a", SHARED_IP, OCTOBER, call_id="9934a1ef-08c3-1238-9ba8-022c7a011cae")
    world.receive(call, at=LATER)
    world.resolve()
    [row] = world.ledger()
    assert (row.account, row.tenant, row.reason) == ("reseller", None, "no_tenant_header")


def test_an_inbound_call_is_its_numbers_wherever_it_was_routed(world: World, reseller: int) -> None:
    a, b = world.tenant(reseller, "a.example.com"), world.tenant(reseller, "b.example.com")
    world.number("+12125550101", reseller, a)
    world.ip("192.0.2.2", reseller, b)
    world.run()
    call = inbound("a", "+12125550101", OCTOBER, source_ip="192.0.2.2", x_tenant="b.example.com")
    world.receive(call, at=LATER)
    [row] = world.ledger()
    assert (row.tenant, row.rule, row.usage_class) == ("a.example.com", "A2", "inbound_conversational")


@pytest.mark.parametrize("service", ["caller_id_lookup", "spam_prevention"])
def test_inbound_services_follow_the_number(world: World, reseller: int, service: str) -> None:
    world.number("+12125550101", reseller, world.tenant(reseller, "a.example.com"))
    world.run()
    world.receive(inbound("a", "+12125550101", OCTOBER, service=service, answered_seconds=None), at=LATER)
    [row] = world.ledger()
    assert (row.tenant, row.usage_class) == ("a.example.com", service)


def test_outbound_recording_follows_ip_or_header(world: World, reseller: int) -> None:
    world.tenant(reseller, BIG)
    world.ip("192.0.2.1", reseller, world.tenant(reseller, "dedicated.example.com"))
    world.ip(SHARED_IP, reseller)
    world.run()
    world.receive(
        outbound("a", "192.0.2.1", OCTOBER, service="call_recording"),
        outbound("b", SHARED_IP, OCTOBER, service="call_recording", x_tenant=BIG),
        at=LATER,
    )
    assert [(row.tenant, row.usage_class) for row in world.ledger()] == [
        ("dedicated.example.com", "call_recording"),
        (BIG, "call_recording"),
    ]


def test_an_on_net_call_is_two_records_for_two_tenants(world: World, reseller: int) -> None:
    world.number("+12125550101", reseller, world.tenant(reseller, "called.example.com"))
    world.ip("192.0.2.1", reseller, world.tenant(reseller, "caller.example.com"))
    world.run()
    world.receive(
        outbound("leg-a", "192.0.2.1", OCTOBER, to_number="+12125550101", call_id="one@example.com"),
        inbound("leg-b", "+12125550101", OCTOBER, call_id="one@example.com"),
        at=LATER,
    )
    assert [row.tenant for row in world.ledger()] == ["caller.example.com", "called.example.com"]


def test_each_tenant_keeps_the_calls_of_the_days_it_had_the_number(world: World, reseller: int) -> None:
    a, b = world.tenant(reseller, "a.example.com"), world.tenant(reseller, "b.example.com")
    tenth, twentieth = utc("2026-10-10"), utc("2026-10-20")
    number = "+12125550101"
    world.number(number, reseller, None, ended_at=tenth)
    world.number(number, reseller, a, tenth, twentieth)
    world.number(number, reseller, b, twentieth)
    world.run()
    days: list[datetime] = [utc(f"2026-10-{day} 12:00") for day in ("09", "11", "19", "21")]
    world.receive(*[inbound(f"day-{day:%d}", number, day) for day in days], at=utc("2026-10-21 13:00"))
    assert [(row.record_id, row.tenant) for row in world.ledger()] == [
        ("day-09", None),
        ("day-11", "a.example.com"),
        ("day-19", "a.example.com"),
        ("day-21", "b.example.com"),
    ]
    assert world.ledger()[0].reason == "number_without_tenant"
    assert world.ledger()[0].account == "reseller"


@pytest.mark.parametrize("cdr_first", [True, False])
@pytest.mark.parametrize("with_default", [True, False])
def test_the_cdr_before_its_invite_and_after_it_come_out_the_same(
    world: World, reseller: int, *, cdr_first: bool, with_default: bool
) -> None:
    world.tenant(reseller, BIG)
    default = world.tenant(reseller, "default.example.com") if with_default else None
    world.ip(SHARED_IP, reseller, default=default)
    world.run()
    call = outbound("a", SHARED_IP, OCTOBER, call_id="one@example.com")
    event = invite("one@example.com", SHARED_IP, OCTOBER, BIG)
    arrivals = [("calls.raw", call), ("sip.raw", event)]
    for index, (topic, value) in enumerate(arrivals if cdr_first else reversed(arrivals)):
        world.receive(value, at=LATER + timedelta(seconds=index), topic=topic)
    world.resolve()
    [row] = world.ledger()
    assert (row.tenant, row.rule) == (BIG, "A5")


def test_without_any_invite_the_default_tenant_pays_after_the_wait(world: World, reseller: int) -> None:
    world.ip(SHARED_IP, reseller, default=world.tenant(reseller, "default.example.com"))
    world.run()
    world.receive(outbound("a", SHARED_IP, OCTOBER), at=LATER)
    world.receive(invite("other@example.com", SHARED_IP, OCTOBER), at=LATER, topic="sip.raw")
    world.logs.unread["sip.raw", 0] = 99  # more is in Kafka than was read
    world.resolve()
    assert world.ledger() == []
    late = LATER + timedelta(minutes=5, seconds=1)
    world.receive(invite("another@example.com", SHARED_IP, OCTOBER), at=late, topic="sip.raw")
    world.resolve()
    [row] = world.ledger()
    assert (row.tenant, row.rule) == ("default.example.com", "A5")


def test_an_invite_after_the_wait_changes_nothing(world: World, reseller: int) -> None:
    world.tenant(reseller, BIG)
    world.ip(SHARED_IP, reseller)
    world.run()
    world.receive(outbound("a", SHARED_IP, OCTOBER, call_id="one@example.com"), at=LATER)
    too_late = LATER + timedelta(minutes=5, seconds=1)
    world.receive(invite("one@example.com", SHARED_IP, OCTOBER, BIG), at=too_late, topic="sip.raw")
    world.resolve()
    [row] = world.ledger()
    assert (row.tenant, row.reason) == (None, "no_tenant_header")


def test_an_authentication_retry_with_another_header_wins(world: World, reseller: int) -> None:
    world.tenant(reseller, BIG)
    world.tenant(reseller, "first.example.com")
    world.ip(SHARED_IP, reseller)
    world.run()
    world.receive(
        invite("one@example.com", SHARED_IP, OCTOBER + timedelta(seconds=1), BIG, cseq=2),
        invite("one@example.com", SHARED_IP, OCTOBER, "first.example.com", cseq=1),
        at=OCTOBER,
        topic="sip.raw",
    )
    world.receive(outbound("a", SHARED_IP, OCTOBER, call_id="one@example.com"), at=LATER)
    world.resolve()
    assert [row.tenant for row in world.ledger()] == [BIG]


def test_a_header_that_differs_only_in_case_is_nobodys(world: World, reseller: int) -> None:
    world.tenant(reseller, BIG)
    world.ip(SHARED_IP, reseller, default=world.tenant(reseller, "default.example.com"))
    world.run()
    world.receive(outbound("a", SHARED_IP, OCTOBER, x_tenant=BIG.title()), at=LATER)
    [row] = world.ledger()
    assert (row.account, row.tenant, row.reason) == ("reseller", None, "unknown_tenant")
    with world.engine.connect() as connection:
        [listed] = unattributed(connection)
    assert (listed.asset, listed.named, listed.near_match) == (SHARED_IP, BIG.title(), BIG)


def test_a_spoofed_header_from_a_dedicated_ip_moves_nothing_and_is_listed(
    world: World, reseller: int
) -> None:
    world.tenant(reseller, "victim.example.com")
    world.ip("192.0.2.1", reseller, world.tenant(reseller, "owner.example.com"))
    world.run()
    world.receive(outbound("a", "192.0.2.1", OCTOBER, x_tenant="victim.example.com"), at=LATER)
    [row] = world.ledger()
    assert (row.tenant, row.rule, row.header_ignored) == ("owner.example.com", "A4", "victim.example.com")
    with world.engine.connect() as connection:
        [listed] = unattributed(connection, Period(2026, 10), "reseller")
    assert (listed.reason, listed.asset, listed.named) == (
        "header_ignored",
        "192.0.2.1",
        "victim.example.com",
    )


def test_another_accounts_tenant_is_never_reached_by_a_header(world: World, reseller: int) -> None:
    other = world.account("other")
    world.tenant(other, "theirs.example.com")
    world.ip(SHARED_IP, reseller)
    world.run()
    world.receive(outbound("a", SHARED_IP, OCTOBER, x_tenant="theirs.example.com"), at=LATER)
    [row] = world.ledger()
    assert (row.account, row.tenant, row.reason) == ("reseller", None, "unknown_tenant")


def test_usage_of_unknown_numbers_and_ips_is_posted_to_nobodys_total(world: World) -> None:
    world.run()
    world.receive(
        inbound("a", "+12125550109", OCTOBER), outbound("b", "203.0.113.9", OCTOBER, call_id=None), at=LATER
    )
    assert [(row.account, row.reason) for row in world.ledger()] == [
        (None, "number_not_assigned"),
        (None, "ip_not_assigned"),
    ]


def test_a_record_from_the_future_waits_until_then(world: World, reseller: int) -> None:
    world.number("+12125550101", reseller, world.tenant(reseller, "a.example.com"))
    world.run("2026-09", "2027-12")
    soon = datetime.now(tz=OCTOBER.tzinfo) + timedelta(seconds=1)  # noqa: TID251 (the database's clock is the real one)
    assert world.receive(inbound("a", "+12125550101", soon), at=soon) == {("held", "clock_ahead"): 1}
    world.resolve()
    assert world.ledger() == []
    while datetime.now(tz=soon.tzinfo) < soon:  # noqa: TID251 (same)
        threading.Event().wait(0.05)
    world.resolve()
    assert [row.tenant for row in world.ledger()] == ["a.example.com"]
    assert world.outcomes() == {("posted", ""): 1}

"""Whose call is it: what a customer would recognise."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribution.attribute import (
    Attributed,
    Attribution,
    Held,
    InputRules,
    Unattributed,
    attribute,
    attribute_each,
    attribute_in_context,
)
from attribution.directory import Directory, Tenant
from schemas import network
from schemas.columns import CallColumns
from schemas.decoded import Decoded
from schemas.formats.canonical import decode_sip
from schemas.records import CallRecord, SipEvent
from tests.attribution.worlds import (
    BEGINNING,
    BIG,
    CONTEXT_RULES,
    RESELLER,
    RIVAL,
    RIVALS_BIG,
    RULES,
    SMALL,
    TENANTS,
    dedicated,
    directory,
    inbound,
    invite,
    number,
    on,
    outbound,
    shared,
)

NUMBER = "+12125550100"


def tenant_of(attribution: Attribution) -> int | None:
    assert isinstance(attribution, Attributed)
    return attribution.tenant_id


def reason_of(attribution: Attribution) -> str:
    assert isinstance(attribution, Unattributed | Held)
    return attribution.reason


# the called number


@pytest.mark.parametrize("service", ["call", "caller_id_lookup", "spam_prevention"])
def test_inbound_usage_follows_the_number_even_when_routed_to_another_tenants_ip(service: str) -> None:
    world = directory(number(1, NUMBER, BIG), dedicated(1, "192.0.2.1", SMALL))
    record = inbound(NUMBER, service=service, source_ip="192.0.2.1", x_tenant="small.mypbx.com")
    assert attribute(record, world, RULES) == Attributed(RESELLER, BIG, "A2", 1)


def test_an_on_net_call_is_two_records_for_two_tenants() -> None:
    world = directory(number(1, NUMBER, BIG), dedicated(1, "192.0.2.1", SMALL))
    assert tenant_of(attribute(outbound("192.0.2.1", to_number=NUMBER), world, RULES)) == SMALL
    assert tenant_of(attribute(inbound(NUMBER), world, RULES)) == BIG


def test_a_number_moved_on_the_20th_leaves_each_tenant_its_own_calls() -> None:
    world = directory(number(1, NUMBER, BIG, on(10), on(20)), number(2, NUMBER, SMALL, on(20)))
    assert reason_of(attribute(inbound(NUMBER, on(9)), world, RULES)) == "number_not_assigned"
    assert tenant_of(attribute(inbound(NUMBER, on(11)), world, RULES)) == BIG
    assert tenant_of(attribute(inbound(NUMBER, on(20) - timedelta(microseconds=1)), world, RULES)) == BIG
    assert tenant_of(attribute(inbound(NUMBER, on(20)), world, RULES)) == SMALL


def test_a_number_without_tenant_stays_the_accounts_unassigned_usage_when_it_is_assigned_later() -> None:
    world = directory(number(1, NUMBER, None, on(1), on(10)), number(2, NUMBER, BIG, on(10)))
    before = attribute(inbound(NUMBER, on(9)), world, RULES)
    assert before == Unattributed("number_without_tenant", RESELLER, "A6", 1)


def test_a_number_dialled_without_country_is_read_by_the_home_country() -> None:
    assert tenant_of(attribute(inbound("(212) 555-0100"), directory(number(1, NUMBER, BIG)), RULES)) == BIG


@pytest.mark.parametrize(
    "called", ["911", "933", "alice", "+00012125550100", "+1_2125550100", "+1212555010\u0660"]
)
def test_what_is_no_number_is_never_taken_for_one(called: str) -> None:
    world = directory(number(1, NUMBER, BIG), number(2, "+1911555", BIG))
    assert attribute(inbound(called), world, RULES) == Unattributed("number_not_assigned", None, "A6")


# the source address


@pytest.mark.parametrize("service", ["call", "call_recording"])
def test_outbound_usage_follows_the_dedicated_ip(service: str) -> None:
    world = directory(dedicated(7, "192.0.2.0/29", BIG))
    assert attribute(outbound("192.0.2.1", service=service), world, RULES) == Attributed(
        RESELLER, BIG, "A4", 7
    )


def test_an_ipv4_mapped_address_is_the_ipv4_address() -> None:
    assert (
        tenant_of(attribute(outbound("::ffff:192.0.2.1"), directory(dedicated(1, "192.0.2.1", BIG)), RULES))
        == BIG
    )


def test_an_address_nobody_owns_is_unowned() -> None:
    assert attribute(outbound("203.0.113.9"), directory(), RULES) == Unattributed(
        "ip_not_assigned", None, "A6"
    )


@pytest.mark.parametrize("header", ["small.mypbx.com", "rivals.example.com", "BIGCUSTOMER.mypbx.com"])
def test_a_header_on_a_dedicated_ip_moves_nothing_and_is_shown(header: str) -> None:
    attribution = attribute(outbound("192.0.2.1", header), directory(dedicated(1, "192.0.2.1", BIG)), RULES)
    assert attribution == Attributed(RESELLER, BIG, "A4", 1, header_ignored=header)


def test_a_header_on_a_dedicated_ip_that_names_its_tenant_is_no_news() -> None:
    world = directory(dedicated(1, "192.0.2.1", BIG))
    assert attribute(outbound("192.0.2.1", " bigcustomer.mypbx.com "), world, RULES) == Attributed(
        RESELLER, BIG, "A4", 1
    )


def test_an_ignored_header_is_shown_short_and_without_control_characters() -> None:
    record = outbound("192.0.2.1", "a\x00\x1b[2J" + "x" * 500)
    attribution = attribute(record, directory(dedicated(1, "192.0.2.1", BIG)), RULES)
    assert isinstance(attribution, Attributed)
    assert attribution.header_ignored == ("a\ufffd\ufffd[2J" + "x" * 500)[:128]


# the header


@pytest.mark.parametrize("default", [None, SMALL])
def test_on_a_shared_ip_the_header_decides(default: int | None) -> None:
    world = directory(shared(3, "192.0.2.1", default))
    assert attribute(outbound("192.0.2.1", "\t bigcustomer.mypbx.com "), world, RULES) == Attributed(
        RESELLER, BIG, "A5", 3
    )


def test_a_header_that_differs_only_in_case_is_nobodys_and_the_near_match_is_named() -> None:
    attribution = attribute(
        outbound("192.0.2.1", "BigCustomer.MyPBX.com"), directory(shared(3, "192.0.2.1")), RULES
    )
    assert attribution == Unattributed(
        "unknown_tenant", RESELLER, "A5", 3, near_match="bigcustomer.mypbx.com"
    )


@pytest.mark.parametrize(
    "written", ['"bigcustomer.mypbx.com"', "<bigcustomer.mypbx.com>;", "bigcustomer.mypbx.com."]
)
def test_punctuation_around_a_name_is_a_near_match(written: str) -> None:
    attribution = attribute(outbound("192.0.2.1", written), directory(shared(3, "192.0.2.1", SMALL)), RULES)
    assert isinstance(attribution, Unattributed)
    assert attribution.near_match == "bigcustomer.mypbx.com"


def test_a_header_never_names_another_accounts_tenant() -> None:
    attribution = attribute(
        outbound("192.0.2.1", "rivals.example.com"), directory(shared(3, "192.0.2.1", BIG)), RULES
    )
    assert attribution == Unattributed("unknown_tenant", RESELLER, "A5", 3)


def test_a_tenant_is_named_from_the_instant_it_was_made_until_it_ended() -> None:
    young = Tenant(99, RESELLER, "young.example.com", on(10), on(20))
    world = directory(shared(3, "192.0.2.1"), tenants=(*TENANTS, young))
    found = [
        isinstance(
            attribute(outbound("192.0.2.1", "young.example.com", started_at=at), world, RULES), Attributed
        )
        for at in (on(9), on(10), on(19, 23, 59, 59, 999_999), on(20))
    ]
    assert found == [False, True, True, False]


@pytest.mark.parametrize("header", [None, "", "  \t"])
def test_an_empty_header_is_no_header(header: str | None) -> None:
    record = outbound("192.0.2.1", header)
    assert attribute(record, directory(shared(3, "192.0.2.1")), RULES) == Unattributed(
        "no_tenant_header", RESELLER, "A5", 3
    )
    assert attribute(record, directory(shared(3, "192.0.2.1", SMALL)), RULES) == Attributed(
        RESELLER, SMALL, "A5", 3
    )


# what the directory cannot know yet


def test_a_call_of_an_instant_the_directory_has_not_reached_is_held() -> None:
    world = directory(number(1, NUMBER, BIG), as_of=on(15))
    assert isinstance(attribute(inbound(NUMBER, on(15)), world, RULES), Attributed)
    ahead = inbound(NUMBER, on(15) + timedelta(microseconds=1))
    assert attribute(ahead, world, RULES) == Held("clock_ahead")
    assert attribute_in_context(ahead, world, RULES, []) == Held("clock_ahead")


# the SIP context


@pytest.mark.parametrize(
    ("record", "rules", "held"),
    [
        (outbound("192.0.2.1"), CONTEXT_RULES, True),
        (outbound("192.0.2.2"), CONTEXT_RULES, True),
        (outbound(None), CONTEXT_RULES, True),
        (outbound(None, "bigcustomer.mypbx.com"), CONTEXT_RULES, True),
        (outbound("192.0.2.1"), RULES, False),
        (outbound(None), RULES, False),
        (outbound("192.0.2.1", call_id=None), CONTEXT_RULES, False),
        (outbound("192.0.2.1", "bigcustomer.mypbx.com"), CONTEXT_RULES, False),
        (outbound("192.0.2.3"), CONTEXT_RULES, False),
        (outbound("203.0.113.9"), CONTEXT_RULES, False),
        (inbound(NUMBER, call_id="call-1"), CONTEXT_RULES, False),
    ],
    ids=[
        "shared",
        "shared with default",
        "no source",
        "no source but a header",
        "input without context",
        "no source, input without context",
        "no Call-ID",
        "header",
        "dedicated",
        "unowned",
        "inbound",
    ],
)
def test_only_what_sip_events_could_tell_is_held(
    *, record: CallRecord, rules: InputRules, held: bool
) -> None:
    world = directory(shared(1, "192.0.2.1"), shared(2, "192.0.2.2", SMALL), dedicated(3, "192.0.2.3", BIG))
    assert (attribute(record, world, rules) == Held("sip_context")) is held


@given(
    records=st.lists(
        st.builds(
            outbound,
            st.sampled_from(["192.0.2.1", None, "192.0.2.2", "192.0.2.3", "203.0.113.9"]),
            st.none() | st.sampled_from(["", "small.mypbx.com", "nobody", "BigCustomer.mypbx.com"]),
            call_id=st.sampled_from([None, "call-1"]),
            started_at=st.sampled_from([on(15), on(20), on(31)]),
        )
        | st.builds(inbound, st.sampled_from([NUMBER, "+12125550199", "alice"])),
        min_size=2,
        max_size=20,
    ),
    rules=st.sampled_from([RULES, CONTEXT_RULES]),
)
def test_each_record_of_a_batch_is_decided_as_it_would_be_alone(
    records: list[CallRecord], rules: InputRules
) -> None:
    assets = shared(1, "192.0.2.1"), shared(2, "192.0.2.2", SMALL), dedicated(3, "192.0.2.3", BIG)
    world = directory(*assets, number(4, NUMBER, BIG), as_of=on(30))
    together = attribute_each(CallColumns.of(records), world, rules).each()
    assert together == [attribute(each, world, rules) for each in records]


def test_without_context_a_record_without_source_has_none() -> None:
    assert attribute(outbound(None), directory(), RULES) == Unattributed("no_source_ip", None, "A6")


INVITE = """INVITE sip:442071838750@term.example.com SIP/2.0\r
Via: SIP/2.0/UDP 198.51.100.102:5080;rport;branch=z9hG4bKvm6m68v1tZt3g\r
From: "Big Customer" <sip:12125550100@198.51.100.102>;tag=HQ1jcrp2U6HZj\r
To: <sip:442071838750@term.example.com>\r
Call-ID: call-1\r
CSeq: 5676555 INVITE\r
X-accountcode: {accountcode}\r
{tenant}Content-Length: 0\r
\r
"""


def sip_event(tenant: str, accountcode: str) -> Decoded:
    text = INVITE.format(tenant=tenant, accountcode=accountcode).replace("\r", "\\r").replace("\n", "\\n")
    message = (
        f'"switch": "sbc-1", "observed_at": "2026-10-15T00:00:00Z", "source_ip": "192.0.2.1", "raw": "{text}"'
    )
    return decode_sip(("{" + message.replace('"Big Customer"', '\\"Big Customer\\"') + "}").encode())


def test_the_invite_of_a_shared_ip_names_the_tenant_of_its_call() -> None:
    event = sip_event("X-Tenant: bigcustomer.mypbx.com\r\n", "bigcustomer.mypbx.com")
    assert isinstance(event, SipEvent)
    world = directory(shared(3, "192.0.2.0/24"))
    attribution = attribute_in_context(outbound("192.0.2.1"), world, CONTEXT_RULES, [event])
    assert attribution == Attributed(RESELLER, BIG, "A5", 3)


def test_an_accountcode_without_a_tenant_header_is_not_used() -> None:
    event = sip_event("", "bigcustomer.mypbx.com")
    assert isinstance(event, SipEvent)
    attribution = attribute_in_context(
        outbound("192.0.2.1"), directory(shared(3, "192.0.2.1")), CONTEXT_RULES, [event]
    )
    assert reason_of(attribution) == "no_tenant_header"


def test_the_records_own_header_goes_before_its_sip_events() -> None:
    record = outbound(None, "small.mypbx.com")
    events = [invite("192.0.2.1", "bigcustomer.mypbx.com")]
    assert (
        tenant_of(attribute_in_context(record, directory(shared(3, "192.0.2.1")), CONTEXT_RULES, events))
        == SMALL
    )


def test_a_source_that_only_the_sip_event_knows_is_the_source() -> None:
    world = directory(dedicated(4, "192.0.2.1", BIG))
    attribution = attribute_in_context(
        outbound(None), world, CONTEXT_RULES, [invite("192.0.2.1", "small.mypbx.com")]
    )
    assert attribution == Attributed(RESELLER, BIG, "A4", 4, header_ignored="small.mypbx.com")


@pytest.mark.parametrize(
    ("default", "expected"), [(SMALL, Attributed(RESELLER, SMALL, "A5", 3)), (None, None)]
)
def test_only_after_the_wait_comes_the_default_tenant(
    default: int | None, expected: Attributed | None
) -> None:
    world = directory(shared(3, "192.0.2.1", default))
    attribution = attribute_in_context(outbound("192.0.2.1"), world, CONTEXT_RULES, [])
    assert attribution == (expected or Unattributed("no_tenant_header", RESELLER, "A5", 3))


def test_a_record_without_source_or_sip_event_has_no_source() -> None:
    assert reason_of(attribute_in_context(outbound(None), directory(), CONTEXT_RULES, [])) == "no_source_ip"


def test_the_same_call_id_from_someone_elses_address_steals_nothing() -> None:
    world = directory(shared(3, "192.0.2.1"), shared(4, "198.51.100.1", account_id=RIVAL))
    stolen = invite("198.51.100.1", "small.mypbx.com", cseq=99)
    honest = invite("192.0.2.1", "bigcustomer.mypbx.com")
    assert (
        tenant_of(attribute_in_context(outbound("192.0.2.1"), world, CONTEXT_RULES, [stolen, honest])) == BIG
    )
    alone = attribute_in_context(outbound("192.0.2.1"), world, CONTEXT_RULES, [stolen])
    assert reason_of(alone) == "no_tenant_header"


def test_several_sources_and_none_on_the_record_are_ambiguous() -> None:
    world = directory(shared(3, "192.0.2.1"), shared(4, "198.51.100.1", account_id=RIVAL))
    events = [invite("192.0.2.1", "bigcustomer.mypbx.com"), invite("198.51.100.1", "rivals.example.com")]
    attribution = attribute_in_context(outbound(None), world, CONTEXT_RULES, events)
    assert attribution == Unattributed("ambiguous_context", None, "A3")


def test_an_authentication_retry_from_one_address_is_no_second_source() -> None:
    events = [
        invite("192.0.2.1", "small.mypbx.com", cseq=1),
        invite("192.0.2.1", "bigcustomer.mypbx.com", cseq=2),
    ]
    world = directory(shared(3, "192.0.2.1"))
    assert tenant_of(attribute_in_context(outbound(None), world, CONTEXT_RULES, events)) == BIG


def test_our_own_edges_forwarded_copy_does_not_make_a_source_ambiguous() -> None:
    rules = InputRules(
        sip_context=True, home_country="US", edge_addresses=frozenset({network.address("203.0.113.1")})
    )
    world = directory(shared(3, "192.0.2.1"))
    events = [invite("203.0.113.1", "rewritten", cseq=9), invite("192.0.2.1", "bigcustomer.mypbx.com")]
    assert tenant_of(attribute_in_context(outbound(None), world, rules, events)) == BIG


def test_an_authentication_retry_wins_over_the_first_attempt_in_any_order() -> None:
    world: Directory = directory(shared(3, "192.0.2.1"))
    events = [
        invite("192.0.2.1", "bigcustomer.mypbx.com", cseq=2, observed_at=on(15, 0, 0, 1)),
        invite("192.0.2.1", "small.mypbx.com", cseq=2, observed_at=on(15, 0, 0, 2)),
        invite("192.0.2.1", "small.mypbx.com", cseq=1),
    ]
    outcomes = {
        tenant_of(attribute_in_context(outbound("192.0.2.1"), world, CONTEXT_RULES, order))
        for order in permutations(events)
    }
    assert outcomes == {BIG}


def test_a_sibling_or_rival_can_be_told_apart_from_the_same_code_elsewhere() -> None:
    twin = Tenant(31, RIVAL, "bigcustomer.mypbx.com", BEGINNING, None)
    world = directory(
        shared(3, "192.0.2.1"), shared(4, "198.51.100.1", account_id=RIVAL), tenants=(*TENANTS, twin)
    )
    assert tenant_of(attribute(outbound("192.0.2.1", "bigcustomer.mypbx.com"), world, RULES)) == BIG
    assert tenant_of(attribute(outbound("198.51.100.1", "bigcustomer.mypbx.com"), world, RULES)) == 31
    assert tenant_of(attribute(outbound("198.51.100.1", "rivals.example.com"), world, RULES)) == RIVALS_BIG

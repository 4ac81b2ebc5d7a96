"""The auditor on examples that were worked out by hand."""

from __future__ import annotations

import ast
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests import auditor
from tests.auditor import (
    Account,
    Carrier,
    Group,
    Ip,
    Number,
    Received,
    Report,
    Sealed,
    Sums,
    Tariff,
    Tenant,
    Verdict,
    audit,
    numbers_held,
    peak_channels,
)

SINCE = datetime(2026, 9, 1, tzinfo=UTC)
NOON = datetime(2026, 10, 11, 12, tzinfo=UTC)
CARRIER = Carrier(
    accounts=[Account("reseller"), Account("berlin", "EUR", "DE", frozenset({"DE"}))],
    tenants=[
        Tenant("reseller", "big", SINCE),
        Tenant("reseller", "small", NOON),
        Tenant("berlin", "eins", SINCE),
    ],
    numbers=[
        Number("+12125550100", "reseller", "big", SINCE, NOON),
        Number("+12125550100", "reseller", "small", NOON),
        Number("+12125550101", "reseller", None, SINCE),
        Number("+18005550100", "reseller", "big", SINCE),
    ],
    ips=[
        Ip("192.0.2.0/24", "reseller", None, None, SINCE),
        Ip("192.0.2.7/32", "reseller", "big", None, SINCE),
        Ip("198.51.100.0/24", "reseller", None, "big", SINCE),
        Ip("2001:db8::/32", "berlin", "eins", None, SINCE),
    ],
    tariffs=[
        Tariff("reseller", "outbound_conversational", Decimal("0.60"), first_seconds=60, next_seconds=6),
        Tariff("reseller", "outbound_international", Decimal("0.10")),
        Tariff("reseller", "outbound_international", Decimal("0.20"), prefix="44"),
        Tariff("reseller", "outbound_international", Decimal("0.30"), "minute", "44", NOON),
        Tariff("reseller", "caller_id_lookup", Decimal("0.004"), "event"),
    ],
    oldest_month="2026-09",
)


def call(at: datetime = NOON, record_id: str = "c1", **fields: Any) -> Received:
    said = {
        "id": record_id,
        "switch": "sbc",
        "service": "call",
        "direction": "outbound",
        "call_id": record_id,
        "to_number": "+12125550199",
        "started_at": at.isoformat(),
        "answered_at": at.isoformat(),
        "answered_seconds": "61",
        **fields,
    }
    return Received("calls.raw", at + timedelta(minutes=2), {k: v for k, v in said.items() if v is not None})


def invite(after: timedelta, x_tenant: str | None, cseq: int = 1, **fields: Any) -> Received:
    said = {
        "switch": "sbc",
        "observed_at": NOON.isoformat(),
        "source_ip": "192.0.2.9",
        "call_id": "c1",
        "method": "INVITE",
        "cseq": cseq,
        "headers": {"x-tenant ": f" {x_tenant} "} if x_tenant else {},
        **fields,
    }
    return Received("sip.raw", NOON + timedelta(minutes=2) + after, said)


def judged(*happenings: Received | Sealed) -> Report:
    return audit(CARRIER, happenings)


def only(*happenings: Received | Sealed) -> Verdict:
    return judged(*happenings).verdicts[-1]


def test_an_inbound_call_follows_the_number_at_its_instant_wherever_it_was_routed() -> None:
    inbound: dict[str, Any] = {
        "direction": "inbound",
        "to_number": "212 555 0100",
        "source_ip": "2001:db8::1",
        "cost": "0.01",
    }
    assert only(call(NOON - timedelta(microseconds=1), **inbound)).tenant == "big"
    assert only(call(NOON, **inbound)).tenant == "small"
    unassigned = only(call(**{**inbound, "to_number": "+12125550101"}))
    assert (unassigned.account, unassigned.tenant, unassigned.attribution) == (
        "reseller",
        None,
        "number_without_tenant",
    )


def test_the_longest_prefix_in_force_decides_and_a_header_cannot_move_a_dedicated_ip() -> None:
    spoofed = only(call(source_ip="::ffff:192.0.2.7", x_tenant="small"))
    assert (spoofed.tenant, spoofed.header_ignored) == ("big", "small")
    assert only(call(source_ip="192.0.2.8", x_tenant=" small ")).tenant == "small"
    assert only(call(source_ip="192.0.2.8", x_tenant="Small")).attribution == "unknown_tenant"
    assert only(call(source_ip="203.0.113.1")).attribution == "ip_not_assigned"


@pytest.mark.parametrize("after", [-timedelta(seconds=30), timedelta(seconds=30), timedelta(minutes=5)])
def test_an_invite_names_the_tenant_before_and_after_its_record(after: timedelta) -> None:
    verdicts = judged(call(source_ip="192.0.2.9"), invite(after, "small")).verdicts
    assert [each.tenant for each in verdicts] == ["small", None]
    assert verdicts[1].outcome == "context"


def test_an_invite_later_than_the_wait_changes_nothing() -> None:
    late = invite(timedelta(minutes=5, milliseconds=1), "small", source_ip="198.51.100.1")
    assert judged(call(source_ip="198.51.100.1"), late).verdicts[0].tenant == "big"
    assert judged(call(source_ip="192.0.2.9"), late).verdicts[0].attribution == "no_tenant_header"


@pytest.mark.parametrize(("before", "tenant"), [(timedelta(0), "small"), (timedelta(milliseconds=1), None)])
def test_an_invite_speaks_for_records_received_up_to_35_days_later(
    before: timedelta, tenant: str | None
) -> None:
    old = invite(-timedelta(days=35) - before, "small")
    assert judged(call(source_ip="192.0.2.9"), old).verdicts[0].tenant == tenant


def test_the_highest_cseq_wins_and_two_sources_are_ambiguous() -> None:
    before = -timedelta(seconds=1)
    retried = judged(call(source_ip=None), invite(before, "big"), invite(before, "small", cseq=2))
    assert retried.verdicts[0].tenant == "small"
    split = judged(call(source_ip=None), invite(before, "big"), invite(before, "big", source_ip="192.0.2.10"))
    assert split.verdicts[0].attribution == "ambiguous_context"


def test_a_record_waits_for_sip_events_until_they_have_been_read() -> None:
    report = audit(CARRIER, [call(source_ip="192.0.2.9")], as_of=NOON + timedelta(minutes=7))
    assert report.outcomes() == {("held", "sip_context"): 1}


def test_a_resend_is_a_duplicate_and_other_content_a_conflict() -> None:
    first = call(source_ip="192.0.2.7")
    resent = call(source_ip="192.0.2.7", hangup_cause="16")
    assert judged(first, resent, call(source_ip="192.0.2.7", answered_seconds="62")).outcomes() == {
        ("posted", ""): 1,
        ("duplicate", ""): 1,
        ("quarantined", "conflicting_duplicate"): 1,
    }


def test_what_lacks_a_tariff_stands_and_what_cannot_be_true_does_not() -> None:
    source: dict[str, Any] = {"source_ip": "192.0.2.7"}
    free = call(**source, to_number="+18005550100")
    assert judged(free, free, call(**source)).outcomes() == {
        ("quarantined", "unrated"): 1,
        ("duplicate", ""): 1,
        ("quarantined", "conflicting_duplicate"): 1,
    }
    assert (
        judged(call(**source, currency="EUR"), call(**source)).verdicts[1].reason == "conflicting_duplicate"
    )
    assert judged(call(**source, cost="-1"), call(**source)).verdicts[1].outcome == "posted"


def test_an_identity_holds_over_midnight_for_five_minutes() -> None:
    before, after = datetime(2026, 10, 10, 23, 58, tzinfo=UTC), datetime(2026, 10, 11, 0, 1, tzinfo=UTC)
    source: dict[str, Any] = {"source_ip": "192.0.2.7"}
    assert only(call(before, **source), call(after, **source)).reason == "conflicting_duplicate"
    assert only(call(before, **source), call(after + timedelta(minutes=5), **source)).outcome == "posted"


def test_cost_comes_from_the_longest_prefix_in_force_after_increments() -> None:
    source: dict[str, Any] = {"source_ip": "192.0.2.7"}
    domestic = only(call(**source))
    assert (domestic.billed_seconds, domestic.cost) == (66, Decimal("0.66"))
    assert only(call(**source, to_number="+442079460000")).cost == Decimal("0.305")
    assert only(call(NOON - timedelta(days=1), **source, to_number="+442079460000")).cost == Decimal(
        "0.203333"
    )
    assert only(call(**source, to_number="+18765550100")).usage_class == "outbound_international"
    lookup = call(**source, service="caller_id_lookup", answered_at=None, answered_seconds=None)
    assert only(lookup).cost == Decimal("0.004")


@pytest.mark.parametrize(
    ("fields", "usage_class"),
    [
        ({"to_number": "911"}, "outbound_emergency"),
        ({"to_number": "+18005550100"}, "outbound_toll_free"),
        ({"to_number": "+18765550100"}, "outbound_international"),
        ({"answered_seconds": "5.999"}, "outbound_short_duration"),
        ({"answered_seconds": "6"}, "outbound_conversational"),
        ({"direction": "inbound", "to_number": "+18005550100"}, "inbound_toll_free"),
        ({"service": "call_recording"}, "call_recording"),
    ],
)
def test_the_class_is_the_first_that_fits(fields: dict[str, Any], usage_class: str) -> None:
    assert only(call(source_ip="192.0.2.7", cost="0.01", **fields)).usage_class == usage_class


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id": None}, "unreadable"),
        ({"cost": 0.5}, "unreadable"),
        ({"source_ip": "192.0.2.300"}, "unreadable"),
        ({"started_at": "2026-10-11T12:00:00"}, "unreadable"),
        ({"cost": "-0.01"}, "implausible"),
        ({"currency": "EUR"}, "implausible"),
        ({"ended_at": "2026-10-11T11:59:59Z"}, "implausible"),
        ({"started_at": "2026-08-31T23:59:59Z"}, "too_old"),
        ({"service": "transcription"}, "unrated"),
    ],
)
def test_what_cannot_be_posted_is_quarantined_with_its_reason(fields: dict[str, Any], reason: str) -> None:
    verdict = only(call(**{"source_ip": "192.0.2.7", **fields}))
    assert (verdict.outcome, verdict.reason) == ("quarantined", reason)


def test_what_is_no_usage_is_ignored_and_counted() -> None:
    assert only(Received("calls.raw", NOON, None)).reason == "tombstone"
    assert only(Received("calls.raw", NOON, b"{not json")).reason == "unreadable"
    assert only(invite(timedelta(0), None, method="REGISTER")).reason == "sip_not_invite"
    assert only(invite(timedelta(0), None, to_tag="abc")).reason == "sip_not_initial"


def test_a_sip_message_is_read_from_its_text() -> None:
    raw = "INVITE sip:+12125550199@example.com SIP/2.0\r\ni: c1\r\nTo: <sip:x@example.com>\r\nCSeq: 7 INVITE\r\nX-Tenant:\r\n small\r\n\r\n"
    text = {"switch": "sbc", "observed_at": NOON.isoformat(), "source_ip": "192.0.2.9", "raw": raw}
    report = judged(call(source_ip="192.0.2.9"), Received("sip.raw", NOON, text))
    assert report.verdicts[0].tenant == "small"


def test_late_usage_goes_to_the_oldest_open_period_under_its_own_month() -> None:
    report = judged(
        call(source_ip="192.0.2.7"), Sealed("2026-10"), call(record_id="c2", source_ip="192.0.2.7")
    )
    group = Group("2026-10", "2026-10", "reseller", "big", "outbound_conversational", "USD")
    sums = Sums(1, 1, Decimal(61), 66, Decimal("0.66"))
    late = Group("2026-11", "2026-10", "reseller", "big", "outbound_conversational", "USD")
    assert report.totals() == {group: sums, late: sums}


def test_usage_of_no_account_keeps_what_was_sent() -> None:
    unowned = only(call(source_ip="203.0.113.1", cost="0.0255", currency="EUR"))
    assert (unowned.account, unowned.cost, unowned.currency) == (None, Decimal("0.025500"), "EUR")
    assert only(call(source_ip="203.0.113.1")).currency == "XXX"


def test_an_end_comes_before_a_start_and_a_call_over_the_edge_counts_in_both_months() -> None:
    edge = datetime(2026, 11, 1, tzinfo=UTC)
    minute = timedelta(minutes=1)
    calls = [
        (edge - minute, edge + minute),
        (edge - minute, edge),
        (edge, edge + minute),
        (edge + minute, edge + 2 * minute),
    ]
    assert (
        peak_channels(calls, "2026-10"),
        peak_channels(calls, "2026-11"),
        peak_channels(calls, "2026-12"),
    ) == (2, 2, 0)


def test_numbers_are_counted_at_the_last_instant() -> None:
    assert numbers_held(CARRIER, "2026-10", "reseller", "big") == {"number_toll_free": 1}
    assert numbers_held(CARRIER, "2026-09", "reseller", "big") == {"number_toll_free": 1, "number_local": 1}
    assert numbers_held(CARRIER, "2026-10", "reseller", "small") == {"number_local": 1}


def test_the_auditor_shares_no_code_with_the_product() -> None:
    """Nor with what tests share: only the standard library, and the numbering plans' own data."""
    allowed = {*sys.stdlib_module_names, "phonenumbers"}
    for module in Path(auditor.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module or ""]
            else:
                names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            foreign = [
                name
                for name in names
                if name.partition(".")[0] not in allowed and not f"{name}.".startswith("tests.auditor.")
            ]
            assert (module.name, foreign) == (module.name, [])

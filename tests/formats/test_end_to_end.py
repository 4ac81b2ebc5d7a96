"""Switches' own records from their bytes to the ledger: one billable record a call, and every message accounted for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from schemas.formats import DIALECTS
from schemas.periods import Period
from tests.formats.folders import fixtures_of
from tests.world import World, utc

NOON = utc("2026-10-10 12:10")
TENANT = "bigcustomer.mypbx.com"


def messages(kind: str, name: str, *names: str) -> list[bytes]:
    fixtures = fixtures_of(next(each for each in DIALECTS if (each.kind, each.name) == (kind, name)))
    return [fixtures.messages[each] for each in names]


def input_(topic: str, kind: str, format_: dict[str, Any] | str, **more: Any) -> dict[str, Any]:
    return {"topic": topic, "kind": kind, "format": format_, **more}


@pytest.fixture
def carrier(database: Engine) -> Iterator[World]:
    """A customer with a shared address and a number, and inputs in six dialects."""
    by_context = {"by": "context", "inbound": ["from-pstn*"], "outbound": ["from-customer*"]}
    inputs = [
        input_(
            "kamailio.cdr", "calls", {"name": "kamailio", "switch": "sbc-nyc-1", "direction": "directory"}
        ),
        input_("kamailio.sip", "sip", {"name": "kamailio", "switch": "sbc-nyc-1"}),
        input_(
            "freeswitch", "calls", {"name": "freeswitch_json_cdr", "direction": by_context}, sip_context=False
        ),
        input_(
            "asterisk",
            "calls",
            {"name": "asterisk_cdr", "zone": "America/New_York", "direction": by_context},
            sip_context=False,
        ),
        input_(
            "freeswitch.events",
            "calls",
            {"name": "freeswitch_event", "direction": {"by": "trunk", "outbound": ["customers"]}},
            sip_context=False,
        ),
        input_(
            "opensips", "calls", {"name": "opensips_cdr", "switch": "sbc-lon-1", "direction": "directory"}
        ),
    ]
    yield from _carrier(database, inputs)


@pytest.fixture
def tapped(database: Engine) -> Iterator[World]:
    """The same customer; SIP is captured at every hop."""
    dialogs = {"name": "kamailio", "switch": "sbc-nyc-1", "direction": "directory"}
    yield from _carrier(
        database, [input_("kamailio.cdr", "calls", dialogs), input_("hep", "sip", {"name": "hep"})]
    )


def _carrier(database: Engine, inputs: list[dict[str, Any]]) -> Iterator[World]:
    world = World(database, inputs=inputs)
    account = world.account()
    tenant = world.tenant(account, TENANT)
    world.ip("192.0.2.0/24", account)
    world.number("+12125550100", account, tenant)
    for usage_class in (
        "outbound_conversational",
        "outbound_short_duration",
        "inbound_conversational",
        "outbound_international",
    ):
        world.tariff(account, usage_class, "0.0100")
    this_month = Period.of(datetime.now(tz=UTC))  # noqa: TID251 (the database's clock is the real one)
    world.run(last=str(this_month.plus(1)))
    yield world
    received = world.query("select coalesce(sum(next_offset), 0)::int as n from stream_positions")[0].n
    assert sum(world.outcomes().values()) == received, "every message is counted once"


def posted(world: World) -> list[tuple[str, str, str | None, int]]:
    return [(row.record_id, row.direction, row.tenant, row.billed_seconds) for row in world.ledger()]


def test_a_freeswitch_call_with_its_legs_and_resends_is_billed_once(carrier: World) -> None:
    call = messages(
        "calls",
        "freeswitch_json_cdr",
        "b_leg.json",
        "plain.json",
        "b_leg_of_an_old_release.json",
        "posted_again_with_another_cause.json",
        "encoded.json",
        "loopback.json",
    )
    carrier.receive(*call, at=NOON, topic="freeswitch")
    carrier.receive(*call, at=NOON, topic="freeswitch", partition=1)
    (row,) = carrier.ledger()
    assert (row.direction, row.tenant, row.answered_seconds, row.billed_seconds) == (
        "outbound",
        TENANT,
        130.5,
        131,
    )
    assert carrier.outcomes() == {
        ("posted", ""): 1,
        ("duplicate", ""): 5,
        ("ignored", "b_leg"): 4,
        ("ignored", "loopback_leg"): 2,
    }


def test_a_freeswitch_call_told_by_its_events_is_billed_once(carrier: World) -> None:
    names = (
        "answer",
        "hangup",
        "b_leg",
        "hangup_complete",
        "again_with_another_cause",
        "heartbeat",
        "url_encoded",
    )
    call = messages("calls", "freeswitch_event", *[f"{name}.json" for name in names])
    carrier.receive(*call, at=NOON, topic="freeswitch.events")
    assert [each[1:] for each in posted(carrier)] == [("outbound", TENANT, 131)]
    assert carrier.outcomes() == {
        ("posted", ""): 1,
        ("duplicate", ""): 2,
        ("ignored", "interim_event"): 3,
        ("ignored", "b_leg"): 1,
    }


def test_an_asterisk_call_of_several_rows_is_billed_once_whichever_row_comes_first(carrier: World) -> None:
    rows = messages(
        "calls",
        "asterisk_cdr",
        "fork_not_answered.json",
        "answered.json",
        "fork_after_announcement.json",
        "transferred_leg.json",
        "local_channel.json",
        "local_time.json",
    )
    carrier.receive(*rows, at=NOON, topic="asterisk")
    carrier.receive(*reversed(rows), at=NOON, topic="asterisk", partition=1)
    assert posted(carrier) == [("1791633597.1", "outbound", TENANT, 130)]
    assert carrier.outcomes() == {
        ("posted", ""): 1,
        ("duplicate", ""): 3,
        ("ignored", "unanswered_row"): 4,
        ("ignored", "other_channel"): 2,
        ("ignored", "local_channel"): 2,
    }


def test_a_second_answered_row_of_one_call_is_kept_aside_and_never_added(carrier: World) -> None:
    (first,) = messages("calls", "asterisk_cdr", "answered.json")
    second = json.dumps(json.loads(first) | {"sequence": 5, "start": "2026-10-10T08:01:00.000-0400"}).encode()
    carrier.receive(first, second, at=NOON, topic="asterisk")
    assert posted(carrier) == [("1791633597.1", "outbound", TENANT, 130)]
    assert carrier.outcomes()["quarantined", "conflicting_duplicate"] == 1


def test_a_kamailio_call_with_its_challenge_and_copies_is_billed_once(carrier: World) -> None:
    call = messages(
        "calls",
        "kamailio",
        "invite_event.json",
        "challenged.json",
        "dialog_module.json",
        "answered_with_tag.json",
        "transaction.json",
        "answered_with_tag.json",
    )
    carrier.receive(*call, at=NOON, topic="kamailio.cdr")
    assert posted(carrier) == [("a84b4c76e66710@192.0.2.10;f1;2", "outbound", TENANT, 4)]
    assert carrier.outcomes() == {
        ("posted", ""): 1,
        ("duplicate", ""): 1,
        ("ignored", "challenged"): 1,
        ("ignored", "dialog_copy"): 1,
        ("ignored", "sip_event"): 1,
        ("ignored", "transaction_event"): 1,
    }


def cdr(**fields: Any) -> bytes:
    (value,) = messages("calls", "kamailio", "answered.json")
    return json.dumps(json.loads(value) | fields).encode()


def test_the_directory_tells_which_way_a_call_went(carrier: World) -> None:
    carrier.receive(
        cdr(call_id="out"),
        cdr(call_id="in", src_ip="203.0.113.9", to_user="+12125550100"),
        cdr(call_id="both", to_user="+12125550100"),
        cdr(call_id="neither", src_ip="203.0.113.9"),
        at=NOON,
        topic="kamailio.cdr",
    )
    assert {each[1] for each in posted(carrier)} == {"inbound", "outbound"}
    assert carrier.outcomes() == {("posted", ""): 2, ("quarantined", "undirected"): 2}


def test_a_record_without_its_header_waits_for_its_invite_in_the_switchs_own_form(carrier: World) -> None:
    carrier.receive(cdr(tenant="<null>"), at=NOON, topic="kamailio.cdr")
    assert carrier.outcomes() == {("held", "sip_context"): 1}
    invites = messages("sip", "kamailio", "invite.json", "invite_again.json", "record.json")
    carrier.receive(*invites, at=NOON + timedelta(seconds=1), topic="kamailio.sip")
    carrier.logs.unread = {}
    assert carrier.resolve() in {0, 1}
    carrier.receive(None, at=NOON + timedelta(minutes=9), topic="kamailio.sip")
    carrier.resolve()
    assert [each[2] for each in posted(carrier)] == [TENANT]
    assert carrier.outcomes() == {
        ("posted", ""): 1,
        ("context", ""): 2,
        ("ignored", "sip_not_invite"): 1,
        ("ignored", "tombstone"): 1,
    }


def test_an_invite_captured_at_every_hop_tells_one_call_its_tenant(tapped: World) -> None:
    names = ("invite", "same_capture_again", "next_hop", "trying", "reinvite", "register", "rtcp")
    captured = messages("sip", "hep", *[f"{name}.json" for name in names])
    tapped.receive(*captured, at=NOON, topic="hep")
    tapped.receive(*captured, at=NOON, topic="hep", partition=1)
    call = cdr(call_id="hep-1@192.0.2.10", tenant="<null>")
    tapped.receive(call, call, at=NOON + timedelta(seconds=1), topic="kamailio.cdr")
    tapped.receive(None, at=NOON + timedelta(minutes=9), topic="hep")
    tapped.receive(None, at=NOON + timedelta(minutes=9), topic="hep", partition=1)
    tapped.resolve()
    assert [each[2] for each in posted(tapped)] == [TENANT]
    outcomes = tapped.outcomes()
    assert (outcomes["posted", ""], outcomes["duplicate", ""], outcomes["context", ""]) == (1, 1, 6)
    assert {reason: count for (outcome, reason), count in outcomes.items() if outcome == "ignored"} == {
        "sip_response": 2,
        "sip_not_initial": 2,
        "sip_not_invite": 2,
        "not_sip": 2,
        "tombstone": 2,
    }


def test_a_refused_call_is_an_attempt_of_nothing(carrier: World) -> None:
    carrier.receive(*messages("calls", "kamailio", "never_answered.json"), at=NOON, topic="kamailio.cdr")
    carrier.receive(None, at=NOON + timedelta(minutes=9), topic="kamailio.sip")
    carrier.resolve()
    (row,) = carrier.ledger()
    assert (row.answered, row.billed_seconds, row.cost) == (False, 0, 0)


def test_an_opensips_call_is_billed_by_its_milliseconds(carrier: World) -> None:
    names = ("answered.json", "missed.json", "transaction.json", "answered_again.json")
    carrier.receive(*messages("calls", "opensips_cdr", *names), at=NOON, topic="opensips")
    (row,) = carrier.ledger()
    assert (float(row.answered_seconds), row.billed_seconds) == (3.032, 4)
    assert carrier.outcomes()["ignored", "transaction_event"] == 2


def test_a_call_of_another_country_dialled_with_two_zeros_is_international(carrier: World) -> None:
    carrier.receive(cdr(to_user="0044 20 7946 0123"), at=NOON, topic="kamailio.cdr")
    (row,) = carrier.ledger()
    assert (row.to_number, row.usage_class) == ("+442079460123", "outbound_international")


def test_the_instant_of_a_call_is_the_switchs_and_not_kafkas(carrier: World) -> None:
    carrier.receive(cdr(), at=NOON + timedelta(days=2), topic="kamailio.cdr")
    (row,) = carrier.ledger()
    assert row.started_at == datetime.fromisoformat("2026-10-10T11:59:57.026549+00:00")


def test_a_call_whose_clock_is_ahead_gets_its_direction_when_its_instant_has_come(carrier: World) -> None:
    now = carrier.query("select clock_timestamp() as at")[0].at
    ahead = now.timestamp() + 2
    call = cdr(
        invite_ts=f"{ahead:.6f}", start_time=f"{ahead + 1:.3f}", end_time=f"{ahead + 5:.3f}", duration="4.000"
    )
    carrier.receive(call, at=now, topic="kamailio.cdr")
    assert carrier.outcomes() == {("held", "clock_ahead"): 1}
    carrier.query("select pg_sleep(2.2)")
    carrier.resolve()
    assert [each[1:] for each in posted(carrier)] == [("outbound", TENANT, 4)]

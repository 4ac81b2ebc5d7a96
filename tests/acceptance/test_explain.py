"""An operator asks why a record stands where it stands, and is told what decided, when it was made, and where it is."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.cli.output import Refused
from pipeline.explain import explain
from pipeline.explained import Explained
from tests.world import LONG_AGO, World, inbound, invite, outbound, utc

NOON = utc("2026-10-10 12:00")
LATER = NOON + timedelta(minutes=10)
BIG = "bigcustomer.mypbx.com"
SHARED_IP = "198.51.100.7"


@pytest.fixture
def reseller(world: World) -> int:
    return world.account()


def told(world: World, record_id: str, switch: str = "sbc-1") -> tuple[Explained, ...]:
    with world.engine.connect() as connection:
        return explain(connection, world.settings, switch, record_id)


def only(world: World, record_id: str) -> Explained:
    [explained] = told(world, record_id)
    return explained


def typed(world: World, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setenv("DATABASE_URL", world.engine.url.render_as_string(hide_password=False))
    return CliRunner().invoke(app, ["explain", *arguments])


def test_an_inbound_call_is_explained_by_its_numbers_assignment(world: World, reseller: int) -> None:
    a, b = world.tenant(reseller, "a.example.com"), world.tenant(reseller, "b.example.com")
    world.number("+12125550101", reseller, a, LONG_AGO, NOON)
    moved = world.number("+12125550101", reseller, b, NOON)
    world.run()
    world.receive(inbound("0", "+12125550199", NOON), inbound("a", "+12125550101", NOON), at=LATER)
    explained = only(world, "a")
    assert (explained.outcome, *explained.received) == ("posted", "calls.raw", 0, 1, LATER)
    assert explained.record is not None
    assert explained.record.started_at == NOON
    assert explained.whose is not None
    assert (explained.whose.account, explained.whose.tenant, explained.whose.rule) == (
        "reseller",
        "b.example.com",
        "A2",
    )
    assert "called number" in explained.whose.rule_says
    assert explained.assignment is not None
    assert (explained.assignment.assignment_id, explained.assignment.made_at) == (moved, NOON)
    assert [(each.tenant, each.made_at, each.ended_at) for each in explained.asset_history] == [
        ("a.example.com", LONG_AGO, NOON),
        ("b.example.com", NOON, None),
    ]
    assert explained.sip_event is None
    assert explained.posting is not None
    assert (explained.posting.posted_to, explained.posting.late, explained.posting.state) == (
        "2026-10",
        False,
        "open",
    )


def test_a_call_named_by_its_sip_event_shows_the_event_and_its_header(world: World, reseller: int) -> None:
    world.tenant(reseller, BIG)
    ip = world.ip("198.51.100.0/24", reseller)
    world.run()
    world.receive(
        invite("one@example.com", SHARED_IP, NOON, "other", cseq=1),
        invite("one@example.com", SHARED_IP, NOON + timedelta(seconds=1), BIG, cseq=2),
        at=NOON,
        topic="sip.raw",
    )
    world.receive(outbound("a", SHARED_IP, NOON, call_id="one@example.com"), at=LATER)
    world.resolve()
    explained = only(world, "a")
    assert explained.whose is not None
    assert (explained.whose.rule, explained.whose.header, explained.whose.header_from) == (
        "A5",
        BIG,
        "sip_event",
    )
    assert explained.sip_event is not None
    assert (explained.sip_event.topic, explained.sip_event.partition, explained.sip_event.offset) == (
        "sip.raw",
        0,
        1,
    )
    assert (explained.sip_event.cseq, explained.sip_event.counting, explained.sip_event.received_at) == (
        2,
        2,
        NOON,
    )
    assert explained.assignment is not None
    assert (explained.assignment.assignment_id, explained.assignment.asset) == (ip, "198.51.100.0/24")


@pytest.mark.parametrize("by_sip_event", [True, False])
def test_a_name_nobody_has_shows_the_one_that_was_probably_meant(
    world: World, reseller: int, *, by_sip_event: bool
) -> None:
    world.tenant(reseller, BIG)
    world.ip(SHARED_IP, reseller)
    world.run()
    written = f'"{BIG.upper()}"'
    header = {} if by_sip_event else {"x_tenant": written}
    world.receive(
        invite("one@example.com", SHARED_IP, NOON, written if by_sip_event else "ignored"),
        at=NOON,
        topic="sip.raw",
    )
    world.receive(outbound("a", SHARED_IP, NOON, call_id="one@example.com", **header), at=LATER)
    world.resolve()
    whose = only(world, "a").whose
    assert whose is not None
    assert (whose.reason, whose.near_match, whose.header) == ("unknown_tenant", BIG, written)
    assert whose.header_from == ("sip_event" if by_sip_event else "record")


def test_a_source_that_only_the_sip_event_knew_is_shown_with_its_assignment(
    world: World, reseller: int
) -> None:
    ip = world.ip("192.0.2.1", reseller, world.tenant(reseller, "owner.example.com"))
    world.run()
    world.receive(
        invite("one@example.com", "192.0.2.1", NOON, "victim.example.com"), at=NOON, topic="sip.raw"
    )
    world.receive(outbound("a", None, NOON, call_id="one@example.com"), at=LATER)
    world.resolve()
    explained = only(world, "a")
    assert explained.sip_event is not None
    assert explained.assignment is not None
    assert (explained.sip_event.source_ip, explained.assignment.assignment_id) == ("192.0.2.1", ip)
    assert explained.whose is not None
    assert (explained.whose.rule, explained.whose.header_ignored) == ("A4", "victim.example.com")


def test_several_sources_are_named(world: World, reseller: int) -> None:
    world.ip(SHARED_IP, reseller)
    world.run()
    events = [invite("one@example.com", source, NOON) for source in (SHARED_IP, "198.51.100.8")]
    world.receive(*events, at=NOON, topic="sip.raw")
    world.receive(outbound("a", None, NOON, call_id="one@example.com"), at=LATER)
    world.resolve()
    explained = only(world, "a")
    assert explained.whose is not None
    assert (explained.whose.reason, explained.sip_event) == ("ambiguous_context", None)
    assert any(SHARED_IP in note and "198.51.100.8" in note for note in explained.notes)


def test_a_number_assigned_only_after_the_call_shows_that(world: World, reseller: int) -> None:
    world.number("+12125550101", reseller, None, made_at=LATER)
    world.run()
    world.receive(inbound("a", "+12125550101", NOON), at=LATER)
    explained = only(world, "a")
    assert explained.whose is not None
    assert explained.whose.reason_says == "nobody owned the called number at that instant"
    assert explained.assignment is None
    assert [each.made_at for each in explained.asset_history] == [LATER]


def test_the_cost_is_explained_by_its_tariff_and_increments(world: World, reseller: int) -> None:
    world.ip("192.0.2.1", reseller, world.tenant(reseller, "a.example.com"))
    tariff = world.tariff(reseller, "outbound_international", "0.10", prefix="44", first=60, next=6)
    world.run()
    abroad = {"to_number": "+442079460000", "answered_seconds": "61"}
    world.receive(
        outbound("a", "192.0.2.1", NOON, **abroad, billed_seconds=None, cost=None),
        outbound("b", "192.0.2.1", NOON, **abroad),
        outbound("c", "192.0.2.1", NOON, to_number="911", cost=None),
        at=LATER,
    )
    by_tariff, as_sent, free = (only(world, each).usage for each in "abc")
    assert by_tariff is not None
    assert (by_tariff.usage_class, by_tariff.billed_seconds, str(by_tariff.cost)) == (
        "outbound_international",
        66,
        "0.110000",
    )
    assert (by_tariff.tariff_id, by_tariff.tariff_prefix, by_tariff.tariff_increments) == (
        tariff,
        "44",
        "60/6",
    )
    assert "60/6" in by_tariff.billed_says
    assert by_tariff.cost_says == "66 billed seconds at 0.100000 a minute"
    assert "the called region is GB; domestic are PR, US" in by_tariff.class_says
    assert as_sent is not None
    assert as_sent.cost_says == "as the switch sent it"
    assert free is not None
    assert (free.class_says, free.cost_says) == ("a call to an emergency number", "emergency calls are free")


def test_a_late_call_says_why_it_stands_in_another_month(world: World, reseller: int) -> None:
    world.number("+12125550101", reseller, world.tenant(reseller, "a.example.com"))
    world.run()
    with world.engine.begin() as connection:
        connection.execute(
            text("update periods set state = 'sealed', sealed_at = :at where period = '2026-09-01'"),
            {"at": utc("2026-10-03 00:01")},
        )
    world.receive(inbound("a", "+12125550101", utc("2026-09-30 12:00")), at=LATER)
    posting = only(world, "a").posting
    assert posting is not None
    assert (posting.posted_to, posting.usage_month, posting.late) == ("2026-10", "2026-09", True)
    assert "2026-09 had been sealed at 2026-10-03T00:01" in posting.period_says


def test_a_held_call_says_what_it_waits_for(
    world: World, reseller: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ip(SHARED_IP, reseller)
    world.run()
    world.receive(invite("other@example.com", SHARED_IP, NOON), at=NOON, topic="sip.raw")
    world.receive(outbound("a", SHARED_IP, NOON, call_id="one@example.com"), at=LATER)
    explained = only(world, "a")
    assert explained.outcome == "held"
    assert explained.waits is not None
    assert "'one@example.com' from 198.51.100.7" in explained.waits.waits_for
    assert explained.waits.hold_until == LATER + timedelta(minutes=5)
    assert [(each.topic, each.read_through_at) for each in explained.waits.sip_read] == [("sip.raw", NOON)]
    monkeypatch.setenv("DATABASE_URL", world.engine.url.render_as_string(hide_password=False))
    [listed] = json.loads(CliRunner().invoke(app, ["held", "list", "--json"]).stdout)
    assert "read past 2026-10-10T12:15:00" in listed["waits_for"]
    assert listed["sip_read_through_at"] == "2026-10-10T12:00:00.000000Z"
    assert (listed["topic"], listed["partition"], listed["offset"]) == ("calls.raw", 0, 0)


def test_a_record_from_the_future_says_its_instant(world: World) -> None:
    world.run("2026-09", "2027-12")
    far = utc("2099-01-01 00:00")
    world.receive(inbound("a", "+12125550101", far), at=LATER)
    waits = only(world, "a").waits
    assert waits is not None
    assert (waits.reason, waits.hold_until) == ("clock_ahead", far)
    assert "2099-01-01" in waits.waits_for


def test_a_quarantined_record_says_why_and_how_to_try_again(world: World, reseller: int) -> None:
    world.number("+12125550101", reseller, None)
    world.run()
    record = inbound("a/1é", "+12125550101", NOON, cost=None, billed_seconds=None)
    world.receive(record, at=LATER)
    explained = only(world, "a/1é")
    assert explained.outcome == "quarantined"
    assert explained.quarantine is not None
    assert (explained.quarantine.reason, explained.quarantine.state) == ("unrated", "open")
    assert "no tariff for inbound_conversational" in explained.quarantine.detail
    assert explained.quarantine.to_replay == (
        f"tenant-billing quarantine replay --id {explained.quarantine.quarantine_id}"
    )
    with world.engine.begin() as connection:
        connection.execute(
            text("update quarantine set state = 'discarded', resolution = 'a test call', resolved_at = now()")
        )
    kept = only(world, "a/1é").quarantine
    assert kept is not None
    assert (kept.resolution, kept.to_replay) == ("a test call", None)


@pytest.mark.parametrize(
    "unreadable",
    [
        b'{"switch": "sbc-1", "id": "a-1", "cost": 0.5}',
        b'{"switch": "sbc-1", "id": "a-1", ',
    ],
)
def test_bytes_that_are_no_record_are_found_where_they_name_it(world: World, unreadable: bytes) -> None:
    world.run()
    world.receive(unreadable, b'{"switch": "sbc-2", "id": "a-1"}', at=LATER)
    explained = only(world, "a-1")
    assert (explained.record, explained.received.offset) == (None, 0)
    assert explained.quarantine is not None
    assert explained.quarantine.reason == "unreadable"


def test_a_resend_changes_nothing_and_a_conflicting_one_is_shown_beside(world: World, reseller: int) -> None:
    world.number("+12125550101", reseller, None)
    world.run()
    record = inbound("a", "+12125550101", NOON)
    world.receive(record, record, {**record, "cost": "7"}, at=LATER)
    posted, conflicting = told(world, "a")
    assert (posted.outcome, posted.received.offset) == ("posted", 0)
    assert any("duplicate" in note for note in posted.notes)
    assert conflicting.quarantine is not None
    assert (conflicting.quarantine.reason, conflicting.received.offset) == ("conflicting_duplicate", 2)


def test_all_dates_of_one_id_are_shown(world: World) -> None:
    world.run()
    days = [NOON - timedelta(days=20), NOON, NOON + timedelta(days=30)]
    for day in days:
        world.receive(inbound("a", "+12125550101", day), at=day)
    found = told(world, "a")
    assert [each.record.started_at for each in found if each.record] == days
    assert told(world, "a", "sbc-2") == ()


def test_a_call_posted_by_an_earlier_version_or_after_its_sip_events_expired_is_explained_as_far_as_known(
    world: World, reseller: int
) -> None:
    world.tenant(reseller, BIG)
    world.ip(SHARED_IP, reseller)
    world.run()
    world.receive(invite("one@example.com", SHARED_IP, NOON, BIG), at=NOON, topic="sip.raw")
    world.receive(outbound("a", SHARED_IP, NOON, call_id="one@example.com"), at=LATER)
    world.resolve()
    with world.engine.begin() as connection:
        connection.execute(text("drop table sip_contexts_partition_2026_10"))
    explained = only(world, "a")
    assert explained.whose is not None
    assert (explained.whose.tenant, explained.whose.rule, explained.sip_event) == (BIG, "A5", None)
    assert any("let go" in note for note in explained.notes)


def test_the_command_tells_a_person_and_a_program(
    world: World, reseller: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.number("+12125550101", reseller, world.tenant(reseller, BIG))
    world.run()
    world.receive(inbound("a", "+12125550101", NOON), at=LATER)
    page = typed(world, monkeypatch, "sbc-1", "a")
    assert page.exit_code == 0
    for words in (BIG, "A2", "called number", "calls.raw", "2026-10-10T12:10:00Z", "inbound_conversational"):
        assert words in page.output
    answer: dict[str, Any] = json.loads(typed(world, monkeypatch, "sbc-1", "a", "--json").stdout)
    [found] = answer["found"]
    assert found["received"] == {
        "topic": "calls.raw",
        "partition": 0,
        "offset": 0,
        "received_at": "2026-10-10T12:10:00.000000Z",
    }
    assert (found["usage"]["cost"], found["posting"]["posted_to"]) == ("0.010000", "2026-10")


def test_a_record_that_was_never_received_is_said_to_be_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run()
    world.receive(inbound("a", "+12125550101", NOON), at=LATER)
    never = typed(world, monkeypatch, "sbc-1", "b")
    assert isinstance(never.exception, Refused)
    assert "never seen" in str(never.exception)
    assert "calls.raw[0] to offset 1" in str(never.exception)
    assert json.loads(typed(world, monkeypatch, "sbc-1", "b", "--json").stdout)["found"] == []

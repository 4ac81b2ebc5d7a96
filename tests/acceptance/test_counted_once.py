"""Promises 1 and 2: counted once, and nothing dropped silently."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from pipeline import writing
from pipeline.posting import LostPlaceError, PreparedBatch
from tests.world import World, inbound, invite, outbound, utc

OCTOBER = utc("2026-10-10 12:00")
LATER = OCTOBER + timedelta(minutes=10)
NUMBER = "+12125550101"


@pytest.fixture
def carrier(world: World) -> World:
    account = world.account()
    world.number(NUMBER, account, world.tenant(account, "a.example.com"))
    world.ip("198.51.100.7", account)
    return world.run()


def test_the_same_record_twice_is_one_ledger_row(carrier: World) -> None:
    call = inbound("a", NUMBER, OCTOBER)
    assert carrier.receive(call, call, at=LATER) == {("posted", ""): 1, ("duplicate", ""): 1}
    assert carrier.receive(call, at=LATER + timedelta(days=14), partition=1) == {("duplicate", ""): 1}
    assert len(carrier.ledger()) == 1
    [usage] = carrier.query("select sum(attempts)::int as attempts, sum(cost) as cost from monthly_usage")
    assert (usage.attempts, usage.cost) == (1, Decimal("0.010000"))


def test_another_hangup_cause_alone_is_a_duplicate(carrier: World) -> None:
    carrier.receive(inbound("a", NUMBER, OCTOBER, hangup_cause="NORMAL_CLEARING"), at=LATER)
    again = inbound("a", NUMBER, OCTOBER, hangup_cause="ORIGINATOR_CANCEL")
    assert carrier.receive(again, at=LATER) == {("duplicate", ""): 1}


def test_the_same_id_with_other_billable_content_is_kept_aside_and_the_first_stands(carrier: World) -> None:
    carrier.receive(inbound("a", NUMBER, OCTOBER, billed_seconds=60), at=LATER)
    changed = inbound("a", NUMBER, OCTOBER, billed_seconds=120)
    assert carrier.receive(changed, at=LATER) == {("quarantined", "conflicting_duplicate"): 1}
    assert [row.billed_seconds for row in carrier.ledger()] == [60]
    [kept] = carrier.query("select value, detail from quarantine")
    assert json.loads(bytes(kept.value)) == changed
    assert "other billable content" in kept.detail


@pytest.mark.parametrize("in_one_batch", [False, True])
def test_a_resend_behind_a_contradiction_is_still_a_duplicate_however_they_are_batched(
    carrier: World, *, in_one_batch: bool
) -> None:
    first, other = (inbound("a", NUMBER, OCTOBER, billed_seconds=seconds) for seconds in (60, 120))
    third = inbound("a", NUMBER, OCTOBER, billed_seconds=180)
    carrier.receive(first, at=LATER)
    later = [other, first, other, third, first]
    for batch in [later] if in_one_batch else [[each] for each in later]:
        carrier.receive(*batch, at=LATER)
    assert carrier.outcomes() == {
        ("posted", ""): 1,
        ("duplicate", ""): 2,
        ("quarantined", "conflicting_duplicate"): 3,
    }


def test_a_resend_that_slips_over_midnight_is_recognised(carrier: World) -> None:
    before, after = utc("2026-10-10 23:59:59"), utc("2026-10-11 00:00:01")
    carrier.receive(inbound("a", NUMBER, before), at=LATER + timedelta(days=1))
    slipped = carrier.receive(inbound("a", NUMBER, after), at=LATER + timedelta(days=1), partition=1)
    assert slipped == {("quarantined", "conflicting_duplicate"): 1}
    assert len(carrier.ledger()) == 1


def test_a_waiting_record_stands_against_what_comes_later_under_its_id(carrier: World) -> None:
    waiting = outbound("a", "198.51.100.7", OCTOBER)
    assert carrier.receive(waiting, waiting, at=LATER) == {("held", "sip_context"): 1, ("duplicate", ""): 1}
    with_header = outbound("a", "198.51.100.7", OCTOBER, x_tenant="a.example.com")
    assert carrier.receive(with_header, at=LATER) == {("quarantined", "conflicting_duplicate"): 1}
    carrier.receive(invite("other@example.com", "198.51.100.7", OCTOBER), at=LATER, topic="sip.raw")
    carrier.resolve()
    assert [row.reason for row in carrier.ledger()] == ["no_tenant_header"]


def test_a_waiting_record_stands_on_both_sides_of_midnight(carrier: World) -> None:
    before, after = utc("2026-10-10 23:59:59"), utc("2026-10-11 00:00:01")
    at = after + timedelta(minutes=10)
    assert carrier.receive(outbound("a", "198.51.100.7", before), at=at) == {("held", "sip_context"): 1}
    slipped = outbound("a", "198.51.100.7", after, x_tenant="a.example.com")
    assert carrier.receive(slipped, at=at) == {("quarantined", "conflicting_duplicate"): 1}
    carrier.receive(invite("other@example.com", "198.51.100.7", OCTOBER), at=at, topic="sip.raw")
    carrier.resolve()
    assert [str(row.started_date) for row in carrier.ledger()] == ["2026-10-10"]


def test_a_posted_record_stands_against_one_that_would_have_to_wait(carrier: World) -> None:
    carrier.receive(outbound("a", "198.51.100.7", OCTOBER, x_tenant="a.example.com"), at=LATER)
    without = outbound("a", "198.51.100.7", OCTOBER)
    assert carrier.receive(without, at=LATER) == {("quarantined", "conflicting_duplicate"): 1}


def test_what_the_record_alone_shows_to_be_impossible_does_not_wait(carrier: World) -> None:
    impossible = outbound("a", "198.51.100.7", OCTOBER, answered_seconds="-1")
    assert carrier.receive(impossible, at=LATER) == {("quarantined", "implausible"): 1}
    corrected = outbound("a", "198.51.100.7", OCTOBER)
    assert carrier.receive(corrected, at=LATER) == {("held", "sip_context"): 1}


MALFORMED: list[tuple[str, bytes]] = [
    ("JSON", b'{"id": "x", "switch'),
    ("to_number", json.dumps(inbound("x", NUMBER, OCTOBER) | {"to_number": None}).encode()),
    (
        "switch",
        json.dumps({k: v for k, v in inbound("x", NUMBER, OCTOBER).items() if k != "switch"}).encode(),
    ),
    ("source_ip", json.dumps(outbound("x", "198.51.100.777", OCTOBER)).encode()),
    ("cost", json.dumps(inbound("x", NUMBER, OCTOBER) | {"cost": 0.0255}).encode()),
    (
        "started_at",
        json.dumps(inbound("x", NUMBER, OCTOBER) | {"started_at": "2026-10-10 12:00:00"}).encode(),
    ),
    ("id", json.dumps(inbound("nul\x00byte", NUMBER, OCTOBER)).encode()),
    ("JSON", b"\xff\xfe\x00"),
]


@pytest.mark.parametrize(("named", "malformed"), MALFORMED, ids=[name for name, _ in MALFORMED])
def test_a_malformed_record_is_kept_with_its_reason_and_the_batch_around_it_is_posted(
    carrier: World, named: str, malformed: bytes
) -> None:
    counts = carrier.receive(
        inbound("a", NUMBER, OCTOBER), malformed, inbound("b", NUMBER, OCTOBER), at=LATER
    )
    assert counts == {("posted", ""): 2, ("quarantined", "unreadable"): 1}
    [kept] = carrier.query("select * from quarantine")
    assert (bytes(kept.value), kept.kafka_offset, kept.state) == (malformed, 1, "open")
    assert named in kept.detail


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ended_at": (OCTOBER - timedelta(seconds=1)).isoformat()}, "implausible"),
        ({"answered_seconds": "-1"}, "implausible"),
        ({"cost": "-0.01"}, "implausible"),
        ({"answered_seconds": "86401"}, "implausible"),
        ({"currency": "EUR"}, "implausible"),
        ({"cost": None}, "unrated"),
    ],
)
def test_what_cannot_be_true_or_priced_is_never_posted(
    carrier: World, fields: dict[str, Any], reason: str
) -> None:
    call = {k: v for k, v in (inbound("a", NUMBER, OCTOBER) | fields).items() if v is not None}
    assert carrier.receive(call, at=LATER) == {("quarantined", reason): 1}


def test_a_record_older_than_the_ledger_is_too_old(carrier: World) -> None:
    call = inbound("a", NUMBER, utc("2026-08-31 23:59:59"))
    assert carrier.receive(call, at=LATER) == {("quarantined", "too_old"): 1}


def test_messages_that_bill_nothing_are_counted_as_ignored(carrier: World) -> None:
    register = invite("r@example.com", "198.51.100.7", OCTOBER) | {"method": "REGISTER"}
    again = invite("r@example.com", "198.51.100.7", OCTOBER) | {"to_tag": "abc"}
    counts = carrier.receive(None, register, again, at=LATER, topic="sip.raw")
    assert counts == {
        ("ignored", "tombstone"): 1,
        ("ignored", "sip_not_invite"): 1,
        ("ignored", "sip_not_initial"): 1,
    }


def test_a_worker_that_lost_its_place_writes_nothing(carrier: World) -> None:
    carrier.receive(inbound("a", NUMBER, OCTOBER), at=LATER)
    [position] = carrier.query("select id from stream_positions")
    with pytest.raises(LostPlaceError):
        carrier.poster.post(PreparedBatch(position.id, 0, 5, []))
    assert carrier.outcomes() == {("posted", ""): 1}


def test_a_batch_of_which_a_record_would_come_to_nothing_is_not_written(
    carrier: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours must not lose a record silently: here holding it is forgotten."""
    monkeypatch.setattr(writing, "_hold", lambda *_: None)
    waits = outbound("b", None, OCTOBER, call_id="b@example.com")
    with pytest.raises(writing.UncountedError, match="2 records came to 1"):
        carrier.receive(inbound("a", NUMBER, OCTOBER), waits, at=LATER)
    assert carrier.ledger() == []
    [position] = carrier.query("select next_offset from stream_positions")
    assert position.next_offset == 0
    monkeypatch.undo()
    counts = carrier.receive(inbound("a", NUMBER, OCTOBER), waits, at=LATER)
    assert counts == {("posted", ""): 1, ("held", "sip_context"): 1}


def test_a_record_that_the_database_refuses_is_found_and_kept_and_the_others_are_posted(
    carrier: World,
) -> None:
    calls = [inbound(f"{index:03}", NUMBER, OCTOBER) for index in range(100)]
    calls[37] |= {"billed_seconds": 86_400, "answered_seconds": "86400", "cost": "999999999999.5"}
    with carrier.engine.begin() as connection:
        connection.exec_driver_sql("alter table usage_records add constraint odd check (cost < 1000)")
    counts = carrier.receive(*calls, at=LATER)
    assert counts == {("posted", ""): 99, ("quarantined", "refused_by_database"): 1}
    [position] = carrier.query("select next_offset from stream_positions")
    assert position.next_offset == 100
    [kept] = carrier.query("select kafka_offset, detail from quarantine")
    assert kept.kafka_offset == 37
    assert "odd" in kept.detail


def test_the_last_instant_of_a_month_belongs_to_it(carrier: World) -> None:
    last, first = utc("2026-10-31 23:59:59.999"), utc("2026-11-01 00:00:00")
    elsewhere = inbound("c", NUMBER, last) | {"started_at": "2026-11-01T08:59:59.999+09:00"}
    carrier.receive(
        inbound("a", NUMBER, last), inbound("b", NUMBER, first), elsewhere, at=first + timedelta(hours=1)
    )
    assert [str(row.period) for row in carrier.ledger()] == ["2026-10-01", "2026-11-01", "2026-10-01"]


def test_every_sum_of_monthly_usage_is_the_ledgers(carrier: World) -> None:
    calls = [
        inbound(f"{index:03}", NUMBER, OCTOBER + timedelta(hours=index), billed_seconds=index)
        for index in range(300)
    ]
    for start in range(0, 300, 50):
        carrier.receive(*calls[start : start + 50], *calls[:20], at=utc("2026-10-25"), partition=start % 3)
    columns = "count(*) as n, sum(answered_seconds) as a, sum(billed_seconds) as b, sum(cost) as c"
    [ledger] = carrier.query(f"select {columns} from usage_records")
    [usage] = carrier.query(
        "select sum(attempts) as n, sum(answered_seconds) as a, sum(billed_seconds) as b, sum(cost) as c from monthly_usage"
    )
    assert ledger == usage
    assert ledger.n == 300

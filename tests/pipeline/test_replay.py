"""Quarantine is tried again or given up, each record once (DESIGN 8, C4)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from attribution.changes_store import take_change_instant
from pipeline.replay import discard, replay
from pipeline.settings import InputTopic
from rollup.conservation_store import Conservation, by_topic
from rollup.months_store import database_now
from rollup.posting_store import Outcomes
from rollup.quarantine_store import Chosen
from rollup.tariff_store import NewTariff, add_tariff
from tests.acceptance.months import bodies, close, lines
from tests.pipeline.stopping import killed_at
from tests.world import LONG_AGO, World, inbound, invite, outbound, utc

SHOP = "shop.example.com"
NUMBER = "+12125550101"
SHARED_IP = "198.51.100.7"
SEPTEMBER = utc("2026-09-10 12:00")
IN_TIME = SEPTEMBER + timedelta(minutes=10)


@pytest.fixture
def world(database: Engine) -> World:
    world = World(database)
    account = world.account()
    world.number(NUMBER, account, world.tenant(account, SHOP))
    world.ip(SHARED_IP, account)
    world.number("+12125550102", world.account("rival"), None)
    return world.run()


def unpriced(record_id: str, **fields: Any) -> dict[str, Any]:
    """A call without a cost: it needs a tariff."""
    return {**inbound(record_id, NUMBER, SEPTEMBER, **fields), "cost": None}


def priced(world: World) -> None:
    """The tariff is made now, and reaches back: there was none before it."""
    with world.engine.begin() as connection:
        made_at = take_change_instant(connection)
        tariff = NewTariff(1, "inbound_conversational", LONG_AGO, "minute", Decimal("0.01"))
        add_tariff(connection, made_at, tariff)


def again(world: World, chosen: Chosen | None = None, *, dry_run: bool = False) -> Outcomes:
    return replay(world.engine, world.settings, world.snapshots, chosen or Chosen(), dry_run=dry_run)


def line(world: World) -> Conservation:
    """The conservation line, which must hold whenever it is read."""
    with world.engine.connect() as connection:
        found = by_topic(connection, count_rows=True)
    assert [violation for each in found for violation in each.violations] == []
    return found[-1]


def kept(world: World) -> list[tuple[Any, ...]]:
    rows = world.query("select state, reason, resolution, ordinal from quarantine order by id")
    return [tuple(row) for row in rows]


def test_an_unrated_record_is_posted_once_a_tariff_exists(world: World) -> None:
    world.receive(unpriced("a"), unpriced("b"), at=IN_TIME)
    assert again(world) == {("quarantined", "unrated"): 2}
    priced(world)
    assert again(world) == {("posted", ""): 2}
    assert again(world) == {}
    assert kept(world) == [("replayed", "unrated", "posted", 0)] * 2
    assert [str(row.cost) for row in world.ledger()] == ["0.010000", "0.010000"]
    [usage] = world.query("select shard, attempts from monthly_usage")
    assert usage == (-1, 2)
    assert (line(world).received, line(world).posted, line(world).quarantined) == (2, 2, 0)


def test_a_dry_run_tells_the_same_and_changes_nothing(world: World) -> None:
    world.receive(unpriced("a"), unpriced("a"), b"not JSON", at=IN_TIME)
    priced(world)
    before = world.query("select * from quarantine order by id")
    foretold = again(world, dry_run=True)
    assert foretold == {("posted", ""): 1, ("quarantined", "unreadable"): 1}
    assert world.query("select * from quarantine order by id") == before
    assert world.ledger() == []
    assert again(world) == foretold


def test_what_still_cannot_be_posted_is_not_even_written(world: World) -> None:
    world.receive(unpriced("a"), b"not JSON", at=IN_TIME)
    before = world.query("select xmin::text, * from quarantine order by id")
    assert again(world) == {("quarantined", "unrated"): 1, ("quarantined", "unreadable"): 1}
    assert world.query("select xmin::text, * from quarantine order by id") == before


def test_a_replay_after_the_close_is_late_usage_and_changes_no_statement(world: World) -> None:
    world.receive(unpriced("a"), at=IN_TIME)
    closed = close(world, "2026-09", world.settings.model_copy(update={"quarantine_wait_hours_max": 0}))
    assert [each.text.split(" received", maxsplit=1)[0] for each in closed.left_open] == ["1 unrated records"]
    before = bodies(world, "2026-09")
    priced(world)
    assert again(world) == {("posted", ""): 1}
    close(world, "2026-10")
    assert bodies(world, "2026-09") == before
    assert lines(bodies(world, "2026-10")["reseller", SHOP]) == [
        ("inbound_conversational", "2026-09", True, 1, "0.010000")
    ]
    assert line(world).posted == 1


def test_records_that_could_not_be_read_are_posted_once_their_inputs_setting_is_right(
    database: Engine,
) -> None:
    mistaken = World(database, inputs=(InputTopic(topic="calls.raw", kind="sip"),))
    account = mistaken.account()
    mistaken.number(NUMBER, account, None)
    mistaken.run()
    received = mistaken.receive(inbound("a", NUMBER, SEPTEMBER), unpriced("b"), b"not JSON", at=IN_TIME)
    assert received == {("quarantined", "unreadable"): 3}
    right = World(database)
    assert again(right) == {
        ("posted", ""): 1,
        ("quarantined", "unrated"): 1,
        ("quarantined", "unreadable"): 1,
    }
    assert kept(right) == [
        ("replayed", "unreadable", "posted", 0),
        ("open", "unrated", None, 0),
        ("open", "unreadable", None, 0),
    ]
    [unrated] = right.query("select account_id, started_at, detail from quarantine where reason = 'unrated'")
    assert (unrated.account_id, unrated.started_at) == (account, SEPTEMBER)
    assert "inbound_conversational" in unrated.detail
    assert right.outcomes() == {
        ("posted", ""): 1,
        ("quarantined", "unrated"): 1,
        ("quarantined", "unreadable"): 1,
    }
    assert line(right).received == 3


def test_a_replayed_record_may_have_to_wait_and_is_then_released(database: Engine) -> None:
    mistaken = World(database, inputs=(InputTopic(topic="calls.raw", kind="sip"),))
    account = mistaken.account()
    mistaken.tenant(account, SHOP)
    mistaken.ip(SHARED_IP, account)
    mistaken.number(NUMBER, account, None)
    mistaken.run("2026-09", "2027-12")
    with database.connect() as connection:
        ahead = database_now(connection) + timedelta(hours=1)
    mistaken.receive(
        outbound("a", SHARED_IP, SEPTEMBER), inbound("ahead", NUMBER, ahead), b"{}", None, at=IN_TIME
    )
    right = World(database)
    right.receive(invite("a@example.com", SHARED_IP, SEPTEMBER, SHOP), at=SEPTEMBER, topic="sip.raw")
    assert again(right, Chosen(topic="calls.raw")) == {
        ("held", "sip_context"): 1,
        ("held", "clock_ahead"): 1,
        ("quarantined", "unreadable"): 1,
    }
    assert line(right).held == 2
    assert right.resolve() == 1
    assert [row.tenant for row in right.ledger()] == [SHOP]
    assert line(right)[1:9] == (5, 1, 0, 1, 1, 1, 1, 1)


def test_a_record_without_a_tariff_stands_and_what_is_resent_repeats_it(world: World) -> None:
    world.receive(unpriced("a"), unpriced("b"), at=IN_TIME)
    priced(world)
    world.snapshots.refresh()
    changed = inbound("b", NUMBER, SEPTEMBER, cost="5")
    assert world.receive(unpriced("a"), changed, at=IN_TIME, partition=1) == {
        ("duplicate", ""): 1,
        ("quarantined", "conflicting_duplicate"): 1,
    }
    assert world.ledger() == []
    assert again(world) == {("posted", ""): 2, ("quarantined", "conflicting_duplicate"): 1}
    assert kept(world) == [
        ("replayed", "unrated", "posted", 0),
        ("replayed", "unrated", "posted", 0),
        ("open", "conflicting_duplicate", None, 0),
    ]
    assert again(world) == {("quarantined", "conflicting_duplicate"): 1}
    assert (line(world).posted, line(world).duplicate, line(world).quarantined) == (2, 1, 1)


def test_the_record_that_stands_is_posted_even_if_the_one_that_contradicts_it_is_tried_first(
    world: World,
) -> None:
    world.receive(unpriced("a"), unpriced("a", service="fax"), at=IN_TIME)
    first, second = (row.id for row in world.query("select id from quarantine order by id"))
    conflict = {("quarantined", "conflicting_duplicate"): 1}
    assert again(world, Chosen(ids=(second,))) == conflict
    priced(world)
    assert again(world, Chosen(ids=(second,))) == conflict
    assert again(world, Chosen(ids=(first,))) == {("posted", ""): 1}
    assert again(world) == conflict


@pytest.mark.parametrize("refused", [{"cost": None}, {"currency": "EUR"}], ids=["no tariff", "currency"])
def test_a_record_that_was_given_up_stands_no_longer(world: World, refused: dict[str, Any]) -> None:
    spoilt = {**inbound("a", NUMBER, SEPTEMBER), **refused}
    world.receive(spoilt, at=IN_TIME)
    corrected = inbound("a", NUMBER, SEPTEMBER)
    assert world.receive(corrected, at=IN_TIME) == {("quarantined", "conflicting_duplicate"): 1}
    [first] = world.query("select min(id) as id from quarantine")
    assert discard(world.engine, Chosen(ids=(first.id,)), "the switch has corrected it") == 1
    assert again(world) == {("posted", ""): 1}
    assert world.receive(corrected, at=IN_TIME) == {("duplicate", ""): 1}
    assert line(world).received == 3


def test_what_could_not_be_read_stands_from_when_it_can_be(database: Engine) -> None:
    mistaken = World(database, inputs=(InputTopic(topic="calls.raw", kind="sip"),))
    mistaken.number(NUMBER, mistaken.account(), None)
    mistaken.run()
    mistaken.receive(unpriced("a"), unpriced("a"), at=IN_TIME)
    right = World(database)
    assert again(right) == {("quarantined", "unrated"): 1, ("duplicate", ""): 1}
    assert kept(right) == [("open", "unrated", None, 0), ("replayed", "unreadable", "duplicate", 0)]
    assert right.receive(unpriced("a"), at=IN_TIME) == {("duplicate", ""): 1}
    priced(right)
    assert again(right) == {("posted", ""): 1}
    assert line(right)[1:6] == (3, 1, 2, 0, 0)


def test_near_midnight_a_record_without_a_tariff_stands_under_both_dates(world: World) -> None:
    midnight = SEPTEMBER.replace(hour=0, minute=0, second=0)
    call = unpriced("a")
    before = {**call, "started_at": (midnight - timedelta(minutes=2)).isoformat(), "answered_at": None}
    after = {**call, "started_at": (midnight + timedelta(minutes=2)).isoformat(), "answered_at": None}
    assert world.receive(before, at=IN_TIME) == {("quarantined", "unrated"): 1}
    assert world.receive(after, at=IN_TIME) == {("quarantined", "conflicting_duplicate"): 1}
    priced(world)
    assert again(world) == {("posted", ""): 1, ("quarantined", "conflicting_duplicate"): 1}


def test_a_record_that_the_database_refuses_is_found_and_stays_and_all_others_are_posted(
    world: World,
) -> None:
    world.receive(*(unpriced(f"{number:03}") for number in range(40)), at=IN_TIME)
    priced(world)
    with world.engine.begin() as connection:
        connection.exec_driver_sql("alter table usage_records add constraint odd check (record_id <> '017')")
    assert again(world) == {("posted", ""): 39, ("quarantined", "refused_by_database"): 1}
    [left] = world.query("select kafka_offset, reason, detail from quarantine where state = 'open'")
    assert (left.kafka_offset, left.reason) == (17, "refused_by_database")
    assert "odd" in left.detail
    with world.engine.begin() as connection:
        connection.exec_driver_sql("alter table usage_records drop constraint odd")
    assert again(world) == {("posted", ""): 1}
    assert line(world).posted == 40


def test_records_are_chosen_by_reason_account_input_and_id(world: World) -> None:
    rival = {**inbound("b", "+12125550102", SEPTEMBER), "cost": None}
    world.receive(unpriced("a"), rival, b"not JSON", at=IN_TIME)
    world.receive(b"not SIP", at=IN_TIME, topic="sip.raw")
    unreadable = ("quarantined", "unreadable")
    assert again(world, Chosen(reason="unreadable")) == {unreadable: 2}
    assert again(world, Chosen(topic="sip.raw")) == {unreadable: 1}
    assert again(world, Chosen(account="rival")) == {("quarantined", "unrated"): 1}
    assert again(world, Chosen(account="nobody")) == {}
    [first] = world.query("select min(id) as id from quarantine")
    assert again(world, Chosen(ids=(first.id,))) == {("quarantined", "unrated"): 1}


def test_records_of_an_input_that_is_no_longer_read_stay_as_they_are(world: World) -> None:
    world.receive(b"not SIP", at=IN_TIME, topic="sip.raw")
    world.settings = world.settings.model_copy(
        update={"inputs": (InputTopic(topic="calls.raw", kind="calls"),)}
    )
    assert again(world) == {}
    assert kept(world) == [("open", "unreadable", None, 0)]
    assert line(world).quarantined == 1


def test_replays_at_once_beside_ingest_post_each_record_once_and_conservation_always_holds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.replay._records_max", 20)
    calls = [unpriced(f"{number:03}") for number in range(300)]
    for start in range(0, 300, 50):
        world.receive(*calls[start : start + 50], at=IN_TIME, partition=start % 3)
    priced(world)
    world.snapshots.refresh()
    finished = threading.Event()

    def watch() -> int:
        looks = 0
        while not finished.is_set() or not looks:
            line(world)
            looks += 1
        return looks

    def resend() -> None:
        for start in range(0, 300, 30):
            world.receive(*calls[start : start + 30], at=IN_TIME, partition=7)

    with ThreadPoolExecutor(5) as pool:
        watching = pool.submit(watch)
        replays = [pool.submit(again, world) for _ in range(3)]
        resending = pool.submit(resend)
        total = sum((each.result() for each in replays), Outcomes())
        resending.result()
        finished.set()
        assert watching.result() > 0
    assert total["posted", ""] + total["duplicate", ""] == 300
    assert len(world.ledger()) == 300
    assert line(world)[1:6] == (600, 300, 300, 0, 0)


@pytest.mark.parametrize(
    ("job", "table", "when"),
    [
        ("replay", "usage_records", "before insert"),
        ("replay", "monthly_usage", "after insert"),
        ("replay", "outcome_counts", "before insert"),
        ("discard", "quarantine", "after update"),
    ],
)
def test_a_replay_or_discard_that_is_killed_in_its_transaction_has_done_nothing(
    world: World, database_url: str, tmp_path: Path, job: str, table: str, when: str
) -> None:
    world.receive(*(unpriced(str(number)) for number in range(5)), at=IN_TIME)
    priced(world)
    before = kept(world)
    killed_at(world.engine, table, when, ["tests.pipeline.program", job, database_url], tmp_path / "log")
    assert kept(world) == before
    assert line(world).quarantined == 5
    if job == "replay":
        assert again(world) == {("posted", ""): 5}
    else:
        assert discard(world.engine, Chosen(), "spoilt") == 5
    assert line(world).received == 5


def test_discarded_records_stay_counted_and_are_never_tried_again(world: World) -> None:
    world.receive(unpriced("a"), b"not JSON", b"nor this", at=IN_TIME)
    assert discard(world.engine, Chosen(reason="unreadable"), "a test of the switch") == 2
    assert discard(world.engine, Chosen(reason="unreadable"), "once more") == 0
    priced(world)
    assert again(world) == {("posted", ""): 1}
    assert kept(world)[1:] == [("discarded", "unreadable", "a test of the switch", 0)] * 2
    assert (line(world).quarantined, line(world).discarded) == (2, 2)


def test_many_discard_at_once_and_each_record_is_given_up_once(world: World) -> None:
    world.receive(*[b"not JSON"] * 200, at=IN_TIME)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: discard(world.engine, Chosen(), "spoilt"), range(4)))
    assert sum(found) == 200


def test_parts_are_bounded_in_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.replay._bytes_max", 2500)
    world.receive(*[b"x" * 1000] * 7, b"x" * 9000, at=IN_TIME)
    told: list[int] = []
    replay(world.engine, world.settings, world.snapshots, Chosen(), progress=told.append)
    assert told == [3, 3, 2]

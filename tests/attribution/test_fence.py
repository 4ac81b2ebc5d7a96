"""Whatever the timing, a directory is complete up to its `as_of` (A7)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial

import pytest
from sqlalchemy import Connection, Engine, text

from attribution import directory_store
from attribution.assignment_store import assign_ip, assign_number, release_number
from attribution.changes_store import end_tenant, make_account, make_tenant, take_change_instant
from attribution.directory import Directory
from attribution.directory_store import take_fence
from schemas import network
from tests.attribution.stores import change, loaded
from tests.attribution.worlds import account_details, tenant_details

NUMBER = "+12125550100"


def give(number: str, tenant: str | None) -> partial[int]:
    return partial(assign_number, account_code="reseller", number=number, tenant_code=tenant)


def test_changes_from_many_connections_are_made_at_strictly_increasing_instants(world: Engine) -> None:
    def assign(which: int) -> datetime:
        return change(world, give(f"+1212555{which:04}", "big"))

    with ThreadPoolExecutor(4) as pool:
        instants = list(pool.map(assign, range(100, 140)))
    assert len(set(instants)) == len(instants)
    with world.connect() as connection:
        by_id = connection.execute(text("select made_at from number_assignments order by id")).scalars().all()
    assert list(by_id) == sorted(instants)


def test_a_fence_waits_for_a_change_in_flight_and_then_knows_it(world: Engine) -> None:
    with ThreadPoolExecutor(1) as pool:
        with world.begin() as connection:
            made_at = take_change_instant(connection)
            fence = pool.submit(loaded, world)
            wait_until_someone_waits(world)
            assert not fence.done()
            assign_number(connection, made_at, "reseller", NUMBER, "big")
        directory = fence.result(timeout=10)
    assert directory.as_of >= made_at
    assert directory.number_in_force(NUMBER, made_at) is not None


def test_a_slow_change_is_never_made_before_a_faster_ones_fence(world: Engine) -> None:
    """The second change waits for the first, so that commits come in the order of their instants."""
    with ThreadPoolExecutor(1) as pool:
        with world.begin() as slow:
            first = take_change_instant(slow)
            other = pool.submit(change, world, give("+12125550101", "big"))
            wait_until_someone_waits(world)
            assign_number(slow, first, "reseller", NUMBER, "big")
        second = other.result(timeout=10)
    assert first < second


def test_a_change_after_a_fence_is_made_after_it_even_if_the_clock_steps_back(world: Engine) -> None:
    with world.begin() as connection:
        connection.execute(
            text("update directory_clock set last_made_at = clock_timestamp() + interval '1 hour'")
        )
    before = loaded(world)
    made_at = change(world, give(NUMBER, "big"))
    assert made_at > before.as_of
    assert loaded(world, before).number_in_force(NUMBER, made_at) is not None


def test_two_fences_do_not_wait_for_each_others_readers(world: Engine) -> None:
    first = loaded(world)
    with world.connect() as reading:
        reading.execute(text("select count(*) from number_assignments"))
        assert loaded(world).as_of >= first.as_of


def test_a_load_does_not_know_what_was_made_after_its_fence(world: Engine) -> None:
    with world.begin() as connection:
        as_of = take_fence(connection)
    made_at = change(world, give(NUMBER, "big"))
    with world.connect() as connection:
        early = directory_store.load_directory(connection, as_of)
    assert early.number_in_force(NUMBER, made_at) is None
    later = loaded(world, early)
    assert later.number_in_force(NUMBER, made_at) is not None


@pytest.mark.parametrize("changes_max", [0, 1000])
def test_a_refreshed_directory_answers_like_a_loaded_one(
    world: Engine, monkeypatch: pytest.MonkeyPatch, changes_max: int
) -> None:
    monkeypatch.setattr(directory_store, "changes_max", changes_max)
    refreshed = loaded(world)
    instants = []
    for make in CHANGES:
        instants.append(change(world, make))
        refreshed = loaded(world, refreshed)
    fresh = loaded(world)
    for at in instants:
        assert answers(refreshed, at) == answers(fresh, at)
    assert answers(fresh, instants[-1])[0] is not None


def make_third(connection: Connection, made_at: datetime) -> None:
    make_account(connection, made_at, account_details("third"))
    make_tenant(connection, made_at, "third", "new", tenant_details())
    assign_ip(connection, made_at, "third", "203.0.113.0/24", "new")


CHANGES: list[Callable[[Connection, datetime], object]] = [
    give(NUMBER, "big"),
    partial(assign_ip, account_code="reseller", network="192.0.2.0/24", tenant_code="big"),
    give(NUMBER, "small"),
    make_third,
    partial(release_number, account_code="reseller", number=NUMBER),
    partial(end_tenant, account_code="reseller", code="big"),
    give(NUMBER, None),
]


def answers(directory: Directory, at: datetime) -> tuple[object, ...]:
    addresses = [network.address(each) for each in ("192.0.2.1", "203.0.113.1")]
    return (
        directory.number_in_force(NUMBER, at),
        *(directory.ip_in_force(address, at) for address in addresses),
        directory.tenant_named(1, "big", at),
        sorted(account.code for account in directory.accounts()),
    )


def wait_until_someone_waits(engine: Engine) -> None:
    """Return once a connection waits for an advisory lock."""
    waiting = text("select count(*) from pg_locks where locktype = 'advisory' and not granted")
    pause = threading.Event()
    for _ in range(500):
        with engine.connect() as connection:
            if connection.execute(waiting).scalar_one():
                return
        pause.wait(0.01)
    raise AssertionError("nobody waited")

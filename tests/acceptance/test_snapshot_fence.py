"""Whatever a worker's snapshot knows when a record arrives, the outcome is that of the history (A7).

Each worker keeps a snapshot of its own for as long as it can; here they are as stale as they may be.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from attribution.assignment_store import assign_ip, assign_number, release_number
from attribution.changes_store import take_change_instant
from attribution.details import RefusedChangeError
from rollup.months_store import database_now
from schemas.periods import Period
from tests import auditor
from tests.attribution.stores import change, make_accounts
from tests.attribution.test_fence import wait_until_someone_waits
from tests.world import World, inbound, outbound

NUMBER = "+12125550100"
MICROSECOND = timedelta(microseconds=1)
_examples = count(1)


def installation(engine: Engine) -> World:
    """A running installation with tenants big and small of `reseller`, and other of `rival`."""
    change(engine, make_accounts)
    month = Period.of(now(engine))
    return World(engine).run(str(month.plus(-1)), str(month.plus(1)))


def now(engine: Engine) -> datetime:
    with engine.connect() as connection:
        return database_now(connection)


def give(engine: Engine, number: str, tenant: str | None) -> datetime:
    return change(engine, partial(assign_number, account_code="reseller", number=number, tenant_code=tenant))


def worker(engine: Engine) -> World:
    """A worker that has just loaded its snapshot."""
    started = World(engine)
    assert started.snapshots.current.as_of
    return started


def called(record_id: str, at: datetime, number: str = NUMBER) -> dict[str, Any]:
    return inbound(record_id, number, at)


def tenants(world: World) -> dict[str, str | None]:
    return {row.record_id: row.tenant for row in world.ledger()}


@pytest.fixture
def running(database: Engine) -> World:
    return installation(database)


def test_an_assignment_committed_while_a_worker_is_busy_counts_from_its_very_instant(running: World) -> None:
    engine = running.engine
    give(engine, NUMBER, "big")
    busy = worker(engine)
    moved = give(engine, NUMBER, "small")
    moments = {"before": moved - MICROSECOND, "at": moved, "after": moved + MICROSECOND}
    busy.receive(*(called(name, at) for name, at in moments.items()), at=now(engine))
    assert tenants(running) == {"before": "big", "at": "small", "after": "small"}


def test_a_record_that_comes_before_the_worker_heard_of_the_assignment_has_its_tenant(running: World) -> None:
    engine = running.engine
    unaware = worker(engine)
    made = give(engine, NUMBER, "big")
    dedicated = change(
        engine, partial(assign_ip, account_code="reseller", network="192.0.2.1", tenant_code="small")
    )
    unaware.receive(called("in", made), outbound("out", "192.0.2.1", dedicated), at=now(engine))
    assert tenants(running) == {"in": "big", "out": "small"}


def test_workers_that_know_different_pasts_come_to_the_same_outcome(running: World) -> None:
    engine = running.engine
    workers = []
    instants = []
    for tenant in ("big", "small", None, "big"):
        workers.append(worker(engine))
        instants.append(give(engine, NUMBER, tenant))
    for number, each in enumerate(workers):
        records = [called(f"{number}-{which}", at) for which, at in enumerate(instants)]
        each.receive(*records, at=now(engine), partition=number)
    expected = dict(enumerate(("big", "small", None, "big")))
    assert tenants(running) == {
        f"{n}-{which}": tenant for n in range(4) for which, tenant in expected.items()
    }


def test_a_slow_change_is_waited_for_and_one_asked_for_meanwhile_comes_after_it(running: World) -> None:
    """The slow transaction took its instant first and commits last: nobody may look in between."""
    engine = running.engine
    give(engine, NUMBER, None)
    busy = worker(engine)
    with ThreadPoolExecutor(2) as pool:
        with engine.begin() as slow:
            first = take_change_instant(slow)
            other = pool.submit(give, engine, "+12125550101", "small")
            wait_until_someone_waits(engine)
            received = pool.submit(
                busy.receive, called("a", first), called("b", first - MICROSECOND), at=first
            )
            threading.Event().wait(0.1)
            assert not received.done()
            assign_number(slow, first, "reseller", NUMBER, "big")
        received.result(timeout=10)
        assert other.result(timeout=10) > first
    assert tenants(running) == {"a": "big", "b": None}


def test_a_change_that_was_rolled_back_was_never_there(running: World) -> None:
    engine = running.engine
    give(engine, NUMBER, "big")
    with engine.connect() as connection, connection.begin() as transaction:
        at = take_change_instant(connection)
        assign_number(connection, at, "reseller", NUMBER, "small")
        transaction.rollback()
    worker(engine).receive(called("a", at), at=now(engine))
    assert tenants(running) == {"a": "big"}


def test_a_switch_whose_clock_runs_ahead_gets_what_holds_at_its_instant(running: World) -> None:
    """Not what held when its record arrived: the number moves in between."""
    engine = running.engine
    give(engine, NUMBER, "big")
    ahead = now(engine) + timedelta(seconds=1)
    assert worker(engine).receive(called("a", ahead), at=now(engine)) == {("held", "clock_ahead"): 1}
    moved = give(engine, NUMBER, "small")
    assert moved < ahead
    running.resolve()
    assert tenants(running) == {}
    while now(engine) <= ahead:
        threading.Event().wait(0.05)
    give(engine, NUMBER, "big")
    running.resolve()
    assert tenants(running) == {"a": "small"}


@pytest.mark.parametrize("early", [True, False], ids=["read early", "read late"])
def test_what_has_no_tariff_stands_whether_it_was_read_before_its_instant_or_after(
    running: World, *, early: bool
) -> None:
    engine = running.engine
    give(engine, NUMBER, "big")
    ahead = now(engine) + timedelta(seconds=0.5)
    call = {**called("a", ahead), "cost": None}
    if early:
        assert running.receive(call, at=ahead) == {("held", "clock_ahead"): 1}
    while now(engine) <= ahead:
        threading.Event().wait(0.05)
    if not early:
        running.receive(call, at=ahead)
    running.resolve()
    running.receive(call, {**call, "cost": "7"}, at=ahead)
    assert running.outcomes() == {
        ("quarantined", "unrated"): 1,
        ("duplicate", ""): 1,
        ("quarantined", "conflicting_duplicate"): 1,
    }


class Moved(NamedTuple):
    number: int
    tenant: str | None  # "-": nobody's from then on


class Arrived(NamedTuple):
    """A worker receives a record of a number: started at the instant of an earlier change, a little off, or just now."""

    worker: int
    number: int
    change_back: int
    off: timedelta | None


numbers = st.integers(0, 2)
offs = st.sampled_from([-MICROSECOND, timedelta(0), MICROSECOND, None])
moves = st.builds(Moved, numbers, st.sampled_from(["big", "small", None, "-"]))
arrivals = st.builds(Arrived, st.integers(0, 2), numbers, st.integers(1, 4), offs)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(moves | st.lists(arrivals, min_size=1, max_size=4), min_size=2, max_size=12))
def test_however_changes_and_batches_of_several_workers_alternate_the_outcome_is_the_auditors(
    database: Engine, steps: list[Moved | list[Arrived]]
) -> None:
    with database.connect() as connection:
        world = (
            World(database)
            if connection.scalar(text("select count(*) from accounts"))
            else installation(database)
        )
    example = next(_examples)
    workers = [worker(database) for _ in range(3)]
    changes = [now(database)]
    happenings: list[auditor.Received] = []
    for step in steps:
        if isinstance(step, Moved):
            changes += _moved(database, _number(example, step.number), step.tenant)
            continue
        for each in step:
            said = changes[-1 - each.change_back % len(changes)]
            started = now(database) if each.off is None else min(said + each.off, now(database))
            name = f"{example}-{len(happenings)}"
            record = called(name, started, _number(example, each.number))
            received_at = now(database)
            workers[each.worker].receive(record, at=received_at, partition=each.worker)
            happenings.append(auditor.Received("calls.raw", received_at, record))
    report = auditor.audit(_history(world), happenings)
    expected = {
        each.value["id"]: (verdict.tenant, verdict.attribution)  # type: ignore[index,call-overload]
        for each, verdict in zip(happenings, report.verdicts, strict=True)
    }
    ledger = [row for row in world.ledger() if row.record_id.startswith(f"{example}-")]
    assert {row.record_id: (row.tenant, row.reason or "") for row in ledger} == expected


def _number(example: int, which: int) -> str:
    return f"+1212{example:06}{which}"


def _moved(engine: Engine, number: str, tenant: str | None) -> list[datetime]:
    try:
        if tenant != "-":
            return [give(engine, number, tenant)]
        return [change(engine, partial(release_number, account_code="reseller", number=number))]
    except RefusedChangeError:  # nothing changes
        return []


def _history(world: World) -> auditor.Carrier:
    """The history as it stands in the database, for the auditor to scan."""
    rows = world.query(
        "select n.number, a.code as account, t.code as tenant, n.made_at, n.ended_at from number_assignments n "
        "join accounts a on a.id = n.account_id left join tenants t on t.id = n.tenant_id"
    )
    return auditor.Carrier(
        accounts=[auditor.Account("reseller"), auditor.Account("rival")],
        tenants=[
            auditor.Tenant("reseller", code, datetime(2020, 1, 1, tzinfo=UTC)) for code in ("big", "small")
        ],
        numbers=[auditor.Number(*row) for row in rows],
    )

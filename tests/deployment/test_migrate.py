"""`migrate` beside running services: it waits shortly, lets go, tries again; nothing that is written meanwhile is lost."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog
from sqlalchemy import Engine, text

from deploy.stack.postgres import EmbeddedPostgres
from pipeline.cli import main
from pipeline.database import MigrationBlockedError, connect, migrate
from tests.world import World, inbound, utc

SEPTEMBER = utc("2026-09-10 12:00")
NUMBER = "+12125550101"
BEFORE_ROLES, ROLES = "0008", "0009"
OLD = BEFORE_ROLES


@pytest.fixture
def old_database(postgres: EmbeddedPostgres, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A database that an earlier version migrated."""
    name = f"old_{abs(hash(request.node.name))}"
    admin = connect(postgres.url(), application_name="test").execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"create database {name}"))
    engine = connect(postgres.url(name), application_name="test")
    migrate(engine, OLD)
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"drop database {name} with (force)"))
    admin.dispose()


def test_a_change_that_is_locked_out_lets_writers_through_and_says_what_to_do(old_database: Engine) -> None:
    with writing(old_database) as writer, old_database.begin() as blocker:
        blocker.execute(text("lock table tenants in row exclusive mode"))  # as an uncommitted change holds it
        written = writer.written
        with pytest.raises(MigrationBlockedError, match="pg_stat_activity"):
            migrate(old_database, attempts_max=3, lock_seconds_max=0.2, pause_seconds=0.1)
        assert revision(old_database) == OLD
        writer.wait_for(written + 5)
    migrate(old_database)
    assert revision(old_database) > OLD
    with old_database.connect() as connection:
        assert connection.scalar(text("select count(*) from accounts")) == writer.written
        assert connection.scalar(text("select current_setting('lock_timeout')")) == "0"
        assert connection.scalar(text("select current_user")) == "postgres"


def test_a_change_goes_through_as_soon_as_nobody_is_in_the_way(
    old_database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way, tried = threading.Event(), threading.Event()

    def stand_in_the_way() -> None:
        with old_database.begin() as connection:
            connection.execute(text("lock table tenants in row exclusive mode"))
            in_the_way.set()
            tried.wait(30)

    blocker = threading.Thread(target=stand_in_the_way)
    blocker.start()
    assert in_the_way.wait(30)

    def rest(_seconds: float) -> None:  # between two tries
        tried.set()
        blocker.join()

    monkeypatch.setattr("pipeline.database.time.sleep", rest)
    migrate(old_database, lock_seconds_max=0.2)
    assert tried.is_set()
    assert revision(old_database) > OLD


def test_workers_post_on_while_every_table_changes_hands(database: Engine) -> None:
    world = World(database)
    account = world.account()
    world.number(NUMBER, account, world.tenant(account, "shop.example.com"))
    world.run()
    stop = threading.Event()
    sent = [0, 0]

    def post(partition: int) -> None:
        while not stop.is_set():
            calls = [
                inbound(f"{partition}-{sent[partition] + each}", NUMBER, SEPTEMBER) for each in range(20)
            ]
            world.receive(*calls, at=SEPTEMBER, partition=partition)
            sent[partition] += len(calls)

    workers = [threading.Thread(target=post, args=(partition,)) for partition in range(2)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(3):
            with database.begin() as connection:  # the same change once more: each table's lock is taken
                stamped = connection.scalar(text("select version_num from alembic_version"))
                connection.execute(
                    text("update alembic_version set version_num = :old"), {"old": BEFORE_ROLES}
                )
            migrate(database, ROLES, lock_seconds_max=1.0, pause_seconds=0.05)
            with database.begin() as connection:
                connection.execute(text("update alembic_version set version_num = :head"), {"head": stamped})
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert all(sent)
    assert world.outcomes() == {("posted", ""): sum(sent)}


def test_who_may_not_make_roles_is_told_what_to_run_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a server of its own: roles belong to all its databases."""
    server = EmbeddedPostgres(options=("fsync=off",)).start()
    try:
        admin = connect(server.url(), application_name="test")
        with admin.begin() as connection:
            connection.execute(text("create role somebody login"))
            connection.execute(text("grant create on schema public to somebody"))
        admin.dispose()
        monkeypatch.setenv("DATABASE_URL", server.url().replace("postgres@", "somebody@"))
        monkeypatch.setattr(sys, "argv", ["tenant-billing", "migrate"])
        with pytest.raises(SystemExit) as ended:
            main()
        structlog.reset_defaults()
        assert ended.value.code == 1
        assert "logins.sql" in capsys.readouterr().err
    finally:
        server.stop()


class Writer:
    """Adds accounts as fast as it can."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._moved = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.written = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for(self, written: int) -> None:
        with self._moved:
            assert self._moved.wait_for(lambda: self.written >= written, timeout=30)

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            with self._engine.begin() as connection:
                connection.execute(
                    text(
                        "insert into accounts (code, name, currency, home_country, domestic_regions, made_at) "
                        "values (:code, 'x', 'USD', 'US', '{US}', now())"
                    ),
                    {"code": str(self.written)},
                )
            with self._moved:
                self.written += 1
                self._moved.notify_all()


@contextmanager
def writing(engine: Engine) -> Iterator[Writer]:
    writer = Writer(engine)
    writer.start()
    try:
        yield writer
    finally:
        writer.stop()


def revision(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.scalar(text("select version_num from alembic_version")))

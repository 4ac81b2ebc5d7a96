"""Stopping a process at a chosen point: a trigger makes its transaction wait there, and there it is killed or frozen."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from deploy.stack.child import Child

_POINT = 9_001  # an advisory lock that only tests take
_look_seconds = 0.02
_looks_max = 1500


@contextmanager
def waiting_point(engine: Engine, table: str, when: str) -> Iterator[None]:
    """While the block runs, transactions that come to a point (`after insert`, `before update`) of a table wait there."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "create or replace function wait_at_point() returns trigger language plpgsql as $$ "
                f"begin perform pg_advisory_xact_lock_shared({_POINT}); return new; end $$"
            )
        )
        connection.execute(
            text(
                f"create trigger wait_at_point {when} on {table} for each row execute function wait_at_point()"
            )
        )
    with engine.connect() as gate:
        gate.execute(text("select pg_advisory_lock(:key)"), {"key": _POINT})
        gate.commit()
        try:
            yield
        finally:
            gate.execute(text("select pg_advisory_unlock(:key)"), {"key": _POINT})
            gate.commit()
    with engine.begin() as connection:
        connection.execute(text(f"drop trigger wait_at_point on {table}"))


def killed_at(engine: Engine, table: str, when: str, arguments: list[str], log: Path) -> None:
    """Run a program until it waits at a point, inside its transaction, and kill it there (SIGKILL)."""
    with waiting_point(engine, table, when):
        child = program(arguments, log)
        until(lambda: waits(engine), child, log)
        child.kill()
    until(lambda: not waits(engine) and not others(engine), child, log, running=False)


def program(arguments: list[str], log: Path) -> Child:
    """A module of ours as a process; what it says goes to a file."""
    with log.open("ab") as output:
        return Child([sys.executable, "-m", *arguments], stdout=output)


def waits(engine: Engine) -> bool:
    """Whether a transaction waits at the point."""
    return _asks(
        engine, "select exists (select from pg_locks where objid = :key and not granted)", key=_POINT
    )


def others(engine: Engine) -> bool:
    """Whether a program that `program` ran still has a transaction in the database."""
    return _asks(
        engine,
        "select exists (select from pg_stat_activity where datname = current_database() "
        "and application_name = 'stopped' and xact_start is not null)",
    )


def until(holds: object, child: Child, log: Path, *, running: bool = True) -> None:
    """Wait until something holds; fail with the program's log when it ends before, or never comes there."""
    pause = threading.Event()
    assert callable(holds)
    for _ in range(_looks_max):
        if holds():
            return
        assert child.running or not running, log.read_text()[-4000:]
        pause.wait(_look_seconds)
    raise AssertionError(f"it never came to pass; the program said:\n{log.read_text()[-4000:]}")


def _asks(engine: Engine, question: str, **parameters: object) -> bool:
    with engine.connect() as connection:
        return bool(ask(connection, question, **parameters))


def ask(connection: Connection, question: str, **parameters: object) -> object:
    """One value."""
    return connection.execute(text(question), parameters).scalar()

"""Which process does a job that one process must do: the one whose database session holds the job's lock.

A process that lost its session without noticing (frozen, cut off) may go on for a moment: whatever it writes has a
compare-and-set of its own (L3). The election spares work, it guards nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from schemas.locks import Lock

_log = structlog.get_logger(__name__)


@contextmanager
def elected(engine: Engine, lock: Lock) -> Iterator[Callable[[], bool]]:
    """Stand for a job; the block is told, each time it asks, whether the job is its own.

    What it asks raises DBAPIError where the database is gone, and the job with it. Leaving the block gives it up.
    """
    with engine.connect() as session:
        won = bool(session.scalar(text("select pg_try_advisory_lock(:key)"), {"key": lock}))
        session.commit()

        def leading() -> bool:
            if won:
                session.execute(text("select 1"))
                session.commit()
            return won

        try:
            yield leading
        finally:
            if won:
                _give_up(session, lock)


def while_elected(
    engine: Engine, lock: Lock, stop: Event, interval_seconds: float, job: Callable[[], bool]
) -> None:
    """Do a job again and again while this process is the one for it, until `stop`.

    Args:
        engine: where the lock lives.
        lock: the job's session lock.
        stop: ends the loop, between two rounds.
        interval_seconds: the pause after a round that found nothing to do, or failed.
        job: one round; True where there may be more to do at once. What it raises is logged, and it is tried again.
    """
    while not stop.is_set():
        try:
            with elected(engine, lock) as leading:
                while leading() and not stop.is_set():
                    if not job():
                        stop.wait(interval_seconds)
        except Exception:  # noqa: BLE001 (an outage must not end the job: it is tried again)
            _log.exception("job_failed", job=lock.name.lower())
        stop.wait(interval_seconds)


def _give_up(session: Connection, lock: Lock) -> None:
    """Unlock, or close the real connection: back in the pool it must not hold the lock."""
    try:
        session.rollback()
        session.execute(text("select pg_advisory_unlock(:key)"), {"key": lock})
        session.commit()
    except DBAPIError:
        session.invalidate()

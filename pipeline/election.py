"""Which process does a job that one process must do: the one whose database session holds the job's lock.

The session must be heard of: a process that stands still (frozen, cut off) loses it after `silent_seconds_max`, and
another is elected. It may wake up and go on for a moment without noticing: whatever it writes has a compare-and-set of
its own (L3). The election spares work, it guards nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from schemas.locks import Lock

_log = structlog.get_logger(__name__)
silent_seconds_max = 20.0


@contextmanager
def elected(engine: Engine, lock: Lock) -> Iterator[Callable[[], bool]]:
    """Stand for a job; the block is told, each time it asks, whether the job is its own.

    What it asks raises DBAPIError where the database is gone, and the job with it. Leaving the block gives it up.
    """
    with engine.connect() as session:
        won = bool(session.scalar(text("select pg_try_advisory_lock(:key)"), {"key": lock}))
        session.commit()
        if not won:
            yield lambda: False
            return
        office = _Office(session)
        try:
            yield office.leading
        finally:
            office.leave(lock)


class _Office:
    """A session that holds a job's lock, and a thread that lets the server hear of it."""

    def __init__(self, session: Connection) -> None:
        self._session = session
        self._one_at_a_time = threading.Lock()
        self._lost: DBAPIError | None = None
        self._left = Event()
        self._say("select set_config('idle_session_timeout', :patience, false)", patience=_patience())
        self._beating = threading.Thread(target=self._beat, args=(silent_seconds_max / 4,), daemon=True)
        self._beating.start()

    def leading(self) -> bool:
        """True; raises DBAPIError where the session is lost, and with it the lock."""
        self._say("select 1")
        return True

    def leave(self, lock: Lock) -> None:
        """Unlock, or close the real connection: back in the pool it must hold neither the lock nor its short patience."""
        self._left.set()
        self._beating.join()
        try:
            self._session.rollback()
            self._say("select pg_advisory_unlock(:key)", key=lock)
            self._say("select set_config('idle_session_timeout', '0', false)")
        except DBAPIError:
            self._session.invalidate()

    def _beat(self, interval_seconds: float) -> None:
        while not self._left.wait(interval_seconds):
            try:
                self._say("select 1")
            except DBAPIError:
                return  # whoever leads is told when it asks

    def _say(self, statement: str, **parameters: object) -> None:
        with self._one_at_a_time:
            if self._lost is not None:  # a session that was opened again would not hold the lock
                raise self._lost
            try:
                self._session.execute(text(statement), parameters)
                self._session.commit()
            except DBAPIError as error:
                self._lost = error
                raise


def _patience() -> str:
    """How long the server waits to hear of a session, in its own unit: milliseconds."""
    return str(int(silent_seconds_max * 1000))


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

"""Closing months by itself: makes those ahead, pins, seals and closes those whose cutoff has passed (C1, C2, C4).

Each step is a short transaction of its own, so that a crash leaves a state from which the next round goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from threading import Event

import structlog
from psycopg2.errors import LockNotAvailable
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from attribution.directory_store import take_fence
from pipeline import silence_store
from pipeline.boundaries import BoundariesUnavailableError, BoundarySource, KafkaBoundaries
from pipeline.election import while_elected
from pipeline.settings import Settings
from rollup import boundary_store, close_store, months_store
from rollup.announcement import EventTopics
from rollup.close_store import AggregatesDifferError
from rollup.closed_month_store import ClosedMonth
from rollup.months_store import Blocker, BlockerKind, Waits
from schemas.locks import Lock
from schemas.periods import Period, utc_text

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A month that cannot close yet, and everything it waits for."""

    period: Period
    blockers: tuple[Blocker, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """A month that is closed. `left_open`: repairable records that were not waited for any longer (C4)."""

    month: ClosedMonth
    left_open: tuple[Blocker, ...] = ()


def run_closer(settings: Settings, engine: Engine, stop: Event) -> None:
    """Make and close months until `stop`; one process of an installation does it at a time."""
    source = KafkaBoundaries(
        settings.kafka_bootstrap_servers,
        settings.kafka_security,
        require_log_append_time=settings.require_log_append_time,
    )

    def once() -> bool:
        return closer_round(engine, settings, source)

    while_elected(engine, Lock.CLOSER, stop, settings.closer_interval_seconds, once)


def closer_round(engine: Engine, settings: Settings, source: BoundarySource) -> bool:
    """One round of the closer; True where a month was closed, so that the next one may follow at once."""
    make_months_ahead(engine, settings)
    with engine.begin() as connection:
        now = months_store.database_now(connection)
        due = next(
            (row.period for row in months_store.period_rows(connection) if row.state != "closed"), None
        )
    if due is None or now < due.ends_at + settings.grace:
        return False
    try:
        outcome = close_month(engine, settings, source, due)
    except AggregatesDifferError as error:
        _log.error("month_does_not_add_up", period=str(due), differences=str(error))
        return False
    match outcome:
        case Waiting(period, blockers):
            _log.info("month_waits", period=str(period), waits_for=[each.text for each in blockers])
            if BlockerKind.CLOSING in {each.kind for each in blockers}:
                _end_silent_closers(engine)
            return False
        case Closed(month, left_open):
            _log.info("month_closed", period=str(month.period), statements=month.statement_count)
            for each in left_open:
                _log.warning("month_closed_without_waiting", period=str(month.period), left=each.text)
            return True


def close_month(
    engine: Engine, settings: Settings, source: BoundarySource, period: Period
) -> Closed | Waiting:
    """Close one month if nothing speaks against it; safe to repeat, and for several processes at once.

    Raises:
        AggregatesDifferError: monthly usage is not the ledger's; the month stays sealed.
    """
    waits = waits_of(settings)
    blockers = _pin(engine, settings, source, period) or _seal(engine, period, waits)
    if blockers:
        return Waiting(period, blockers)
    topics = EventTopics(settings.statements_topic, settings.periods_topic)
    try:
        with engine.begin() as connection:
            return _close(connection, period, waits, topics)
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        why = f"another process has been closing {period} for more than {close_store.frozen_seconds_max} s"
        return Waiting(period, (Blocker(BlockerKind.CLOSING, why),))


def _close(connection: Connection, period: Period, waits: Waits, topics: EventTopics) -> Closed | Waiting:
    """Close a sealed month; the caller commits."""
    earlier = months_store.earliest_unclosed(connection, period)
    if earlier is not None:
        why = f"{earlier} is not closed yet; months close in order"
        return Waiting(period, (Blocker(BlockerKind.EARLIER_MONTH, why),))
    month = close_store.close(connection, period, topics)
    row = months_store.period_row(connection, period)
    cutoff = (row and row.cutoff_at) or period.ends_at + waits.grace
    return Closed(month, months_store.left_in_quarantine(connection, period, cutoff))


def _end_silent_closers(engine: Engine) -> None:
    """End closers that stand still in the middle of a COPY: what they hold, no timeout of the server's frees."""
    with engine.begin() as connection:
        ended = silence_store.end_silent(connection, close_store.CLOSING, close_store.frozen_seconds_max)
    for process in ended:
        _log.warning("silent_session_ended", server_process=process)


def make_months_ahead(engine: Engine, settings: Settings) -> tuple[Period, ...]:
    """Make the months that must exist by now; tried again later where readers of the ledger are in the way."""
    try:
        with engine.begin() as connection:
            now = months_store.database_now(connection)
            made = months_store.make_months(connection, now, settings.months_ahead)
    except OperationalError as error:
        _log.warning("months_ahead_not_made", reason=str(error.orig).strip())
        return ()
    if made:
        _log.info("months_made", months=[str(period) for period in made])
    return made


def waits_of(settings: Settings) -> Waits:
    """How long months stay open in this installation."""
    return Waits(settings.grace, timedelta(hours=settings.quarantine_wait_hours_max))


def _pin(engine: Engine, settings: Settings, source: BoundarySource, period: Period) -> tuple[Blocker, ...]:
    """Pin a month's boundaries once its cutoff has passed; asks Kafka outside any transaction."""
    waits = waits_of(settings)
    with engine.begin() as connection:
        row = months_store.period_row(connection, period)
        blockers = months_store.what_blocks(connection, period, months_store.database_now(connection), waits)
    if row is None or row.state != "open" or row.cutoff_at is not None:
        return blockers
    if {each.kind for each in blockers} & {BlockerKind.CUTOFF, BlockerKind.BOOTSTRAP}:
        return blockers
    cutoff = period.ends_at + waits.grace
    try:
        topics = [each.topic for each in settings.inputs]
        topic_ids, found = source.topic_ids(topics), source.boundaries(topics, cutoff)
    except BoundariesUnavailableError as error:
        return (Blocker(BlockerKind.BOUNDARIES, str(error)),)
    with engine.begin() as connection:
        now = months_store.database_now(connection)
        boundary_store.pin_boundaries(connection, period, cutoff, now, found, topic_ids)
    _log.info("boundaries_pinned", period=str(period), cutoff=utc_text(cutoff), partitions=len(found))
    return ()


def _seal(engine: Engine, period: Period, waits: Waits) -> tuple[Blocker, ...]:
    """Seal a month unless something blocks; looks first without the lock, so that waiting disturbs nobody."""
    with engine.begin() as connection:
        now = months_store.database_now(connection)
        blockers = months_store.what_blocks(connection, period, now, waits)
        row = months_store.period_row(connection, period)
    if blockers or row is None or row.state != "open":
        return blockers
    with engine.begin() as connection:
        as_of = take_fence(connection)
    try:
        with engine.begin() as connection:
            return months_store.seal(connection, period, waits, as_of)
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        seconds = months_store.seal_wait_seconds_max
        return (Blocker(BlockerKind.POSTING, f"batches were being posted for {seconds} s without a pause"),)

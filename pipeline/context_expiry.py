"""When SIP contexts may go: once no record can come any more that they could speak for (A10).

An event speaks for records that Kafka received at most `context_age_max` after it. So a month's partition is dropped
when the month is closed and everything received up to so much later has been read and decided: what is dropped changes
no outcome, whenever it happens. The database refuses to drop one that a held record or an open month may need.
"""

from __future__ import annotations

from datetime import datetime

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from attribution.context import context_age_max
from pipeline import context_expiry_store
from pipeline.kafka_logs import KafkaLogs
from pipeline.read_through import read_through
from pipeline.settings import Settings
from schemas.periods import Period

_log = structlog.get_logger(__name__)


def expire_contexts(settings: Settings, engine: Engine, logs: KafkaLogs) -> tuple[Period, ...]:
    """Drop the SIP contexts of each month that nothing can need any more; returns the months.

    Where readers are in the way it waits a second at most, and leaves the rest for the next time.
    """
    needed_from = contexts_needed_from(settings, engine, logs)
    if needed_from is None:
        return ()
    dropped: list[Period] = []
    try:
        while (month := _drop_oldest(engine, needed_from)) is not None:
            dropped.append(month)
        with engine.begin() as connection:
            context_expiry_store.forget_strays(connection, needed_from)
    except OperationalError as error:
        _log.warning("sip_contexts_not_dropped", reason=str(error.orig).strip())
    if dropped:
        _log.info("sip_contexts_dropped", months=[str(month) for month in dropped])
    return tuple(dropped)


def contexts_needed_from(settings: Settings, engine: Engine, logs: KafkaLogs) -> datetime | None:
    """The earliest `received_at` that a SIP event may have and still be asked for; None where that cannot be told yet.

    All that is still to come on call topics was received after they have been read through; what is held or may be
    replayed was received before.
    """
    topics = [topic.topic for topic in settings.inputs_of("calls")]
    calls_read = read_through(engine, logs, topics)
    if calls_read is None:
        return None
    with engine.connect() as connection:
        undecided = context_expiry_store.earliest_undecided(connection)
    return min(calls_read, undecided or calls_read) - context_age_max


def _drop_oldest(engine: Engine, needed_from: datetime) -> Period | None:
    with engine.begin() as connection:
        month = context_expiry_store.oldest_expired_month(connection, needed_from)
        if month is not None:
            context_expiry_store.drop_month(connection, month)
    return month

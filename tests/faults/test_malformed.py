"""A switch that has gone mad: a hundred thousand messages that cannot be read, in a row, and good traffic behind them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from sqlalchemy import Engine

from pipeline.boundaries import KafkaBoundaries
from pipeline.closer import Closed, close_month
from pipeline.settings import Settings
from rollup import reading_store
from rollup.conservation_store import by_topic
from schemas.periods import Period
from tests.acceptance.test_workers import NUMBER, Carrier, wait_until
from tests.faults.running import running_worker
from tests.faults.test_agents import settings_of
from tests.world import inbound

pytestmark = pytest.mark.kafka

MALFORMED: Final = 100_000
LAST_MONTH: Final = Period.parse("2026-09")
SEPTEMBER: Final = datetime(2026, 9, 10, tzinfo=UTC)


def close(engine: Engine, settings: Settings, month: Period) -> Closed:
    patient = settings.model_copy(update={"grace_hours": 0.0, "quarantine_wait_hours_max": 0.0})
    found = close_month(engine, patient, KafkaBoundaries(settings.kafka_bootstrap_servers), month)
    assert isinstance(found, Closed), found
    return found


@pytest.mark.slow
def test_all_are_kept_and_good_traffic_and_the_close_go_on(carrier: Carrier) -> None:
    settings = settings_of(carrier).model_copy(update={"batch_records_max": 4000})
    good = [inbound(f"{index:04}", NUMBER, SEPTEMBER + timedelta(seconds=index)) for index in range(100)]
    carrier.produce("calls", *good[:50])
    for number in range(MALFORMED):
        carrier._producer.produce(carrier.topics["calls"], b'{"id": %d, "switch": ' % number)
        if number % 20_000 == 0:
            carrier._producer.flush(60)
    carrier.produce("calls", *good[50:])
    with running_worker(settings, carrier.world.engine):
        wait_until(lambda: carrier.received() == MALFORMED + 100, seconds=120)
    assert carrier.world.outcomes() == {("posted", ""): 100, ("quarantined", "unreadable"): MALFORMED}
    [kept] = carrier.world.query(
        "select count(distinct value)::int as n, count(*)::int as rows from quarantine"
    )
    assert (kept.n, kept.rows) == (MALFORMED, MALFORMED)
    with carrier.world.engine.connect() as connection:
        assert all(line.holds for line in by_topic(connection, count_rows=True))
        listed = reading_store.quarantined(
            connection, reason="unreadable", account=None, state="open", limit=10
        )
    assert len(listed) == 10
    assert close(carrier.world.engine, settings, LAST_MONTH).month.statement_count == 3

"""An agent whose batch fails goes on by itself, with back-off, and says so; no batch is skipped, the last one included."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from structlog.testing import capture_logs

from pipeline import worker
from pipeline.ordinary import prepare_batch
from pipeline.prepare import Snapshot
from pipeline.settings import Settings
from tests.acceptance.test_workers import NUMBER, OCTOBER, Carrier, wait_until
from tests.faults.running import running_worker
from tests.world import inbound

pytestmark = pytest.mark.kafka


def settings_of(carrier: Carrier, **others: Any) -> Settings:
    environment = carrier.environment
    return Settings(
        database_url=environment["DATABASE_URL"],
        kafka_bootstrap_servers=environment["KAFKA_BOOTSTRAP_SERVERS"],
        inputs=carrier.world.settings.inputs,
        consumer_group=environment["TENANT_BILLING_CONSUMER_GROUP"],
        session_timeout_seconds=2,
        batch_records_max=50,
        **others,
    )


def failures(carrier: Carrier) -> float:
    labels = {"topic": carrier.topics["calls"]}
    return REGISTRY.get_sample_value("tenant_billing_batch_failures_total", labels) or 0


def test_an_exception_while_preparing_the_last_batch_is_told_and_tried_again(
    carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [3]

    def failing(spec: Any, told: Any, snapshot: Snapshot) -> Any:
        if left[0]:
            left[0] -= 1
            raise ZeroDivisionError("a defect of ours")
        return prepare_batch(spec, told, snapshot)

    monkeypatch.setattr(worker, "prepare_batch", failing)
    carrier.produce("calls", inbound("only", NUMBER, OCTOBER))  # nothing comes after it
    with capture_logs() as said, running_worker(settings_of(carrier), carrier.world.engine):
        wait_until(lambda: len(carrier.world.ledger()) == 1)
    told = [each for each in said if each["event"] == "batch_failed"]
    assert [(each["error"], each["offset"]) for each in told] == [("builtins.ZeroDivisionError", 0)] * 3
    assert [each["retry_seconds"] for each in told] == sorted(each["retry_seconds"] for each in told)
    assert told[0]["retry_seconds"] < told[-1]["retry_seconds"]
    assert failures(carrier) == 3


def test_an_exception_while_posting_any_batch_skips_none(carrier: Carrier) -> None:
    """Every batch is refused twice by the database, for a reason that says nothing about its records."""
    with carrier.world.engine.begin() as connection:
        connection.execute(text("create sequence attempts"))
        connection.execute(
            text(
                "create function refuse_twice() returns trigger language plpgsql as $$ begin "
                "if nextval('attempts') % 3 <> 0 then raise exception 'out of order' using errcode = 'XX000'; end if; "
                "return null; end $$"
            )
        )
        connection.execute(
            text(
                "create trigger refuse_twice after insert on usage_records for each statement execute function refuse_twice()"
            )
        )
    calls = [inbound(f"{index:04}", NUMBER, OCTOBER + timedelta(seconds=index)) for index in range(300)]
    carrier.produce("calls", *calls)
    with running_worker(settings_of(carrier), carrier.world.engine):
        wait_until(lambda: carrier.received() == 300)
    assert failures(carrier) >= 2
    assert carrier.world.outcomes() == {("posted", ""): 300}
    assert len(carrier.world.ledger()) == 300


def test_a_worker_that_is_told_to_stops_where_a_topic_can_no_longer_be_read(carrier: Carrier) -> None:
    calls = [inbound(f"{index:04}", NUMBER, OCTOBER + timedelta(seconds=index)) for index in range(1000)]
    carrier.produce("calls", *calls, b"the first of a few", b"that are no reason to stop")
    stopping = settings_of(carrier, unreadable_share_max=0.25)
    with running_worker(stopping, carrier.world.engine) as app:
        wait_until(lambda: carrier.received() == 1002)
        assert not app.should_stop
    carrier.produce("calls", *[b"the switch has gone mad"] * 2000)
    with capture_logs() as said, running_worker(stopping, carrier.world.engine) as app:
        wait_until(lambda: app.should_stop)
    assert "too_many_unreadable" in {each["event"] for each in said}
    with running_worker(settings_of(carrier), carrier.world.engine):  # off, as it is by default
        wait_until(lambda: carrier.received() == 3002)
    assert carrier.world.outcomes() == {("posted", ""): 1000, ("quarantined", "unreadable"): 2002}

"""Whatever happens to a service, what it writes stays JSON that names nobody, and does not flood."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from deploy.stack.kafka import RealKafka
from invoicing.sandbox import Sandbox
from tests.logged import logged
from tests.observability.installation import Installation, eventually
from tests.world import inbound, utc

NUMBER, TENANT, OCTOBER = "+12125550101", "bigcustomer.mypbx.com", utc("2026-10-10 12:00")
TOPICS = {"calls": "calls.outage", "statements": "statements.outage", "periods": "periods.outage"}
KAFKAS = ("librdkafka", "aiokafka")

_ALL_THAT_WRITES = f"""
import logging, sys, threading, warnings
from pipeline.logs import configure_logs

configure_logs("info")
warnings.warn("a call to {NUMBER}")
logging.getLogger("a.library").error("%d of {NUMBER}", "seven")
for _ in range(3):
    logging.getLogger("aiokafka").error("no broker, after %d ms", _)

class Left:
    def __del__(self):
        raise KeyError("{NUMBER}")

Left()

def fails():
    raise KeyError("{NUMBER}")

thread = threading.Thread(target=fails, name="relay")
thread.start()
thread.join()
raise KeyError("{NUMBER}")
"""


@pytest.fixture
def outage(
    database: Engine, database_url: str, real_kafka: RealKafka, tmp_path: Path
) -> Iterator[Installation]:
    """An installation with a broker of its own, which may go away."""
    assert real_kafka.real
    kafka = RealKafka(tmp_path / "kafka").start()
    kafka.create_topics(dict.fromkeys(TOPICS.values(), 2))
    found = Installation(database, database_url, kafka, TOPICS, tmp_path)
    account = found.world.account()
    found.world.number(NUMBER, account, found.world.tenant(account, TENANT))
    found.world.run()
    yield found
    kafka.stop()


def test_warnings_lost_lines_and_what_nobody_caught_are_lines_of_json_too() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", _ALL_THAT_WRITES], capture_output=True, text=True, check=False
    )
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, done.stdout) == (1, "")
    assert NUMBER not in done.stderr
    assert Counter(event.get("logger", event["event"]) for event in events) == {
        "py.warnings": 1,
        "a.library": 1,
        "aiokafka": 1,
        "uncaught": 3,
    }
    assert [event.get("thread") for event in events if event["event"] == "uncaught"] == [None, "relay", None]


def test_a_service_that_does_not_start_says_why_as_its_log_would(tmp_path: Path) -> None:
    for name, wrong in (("worker", {"TENANT_BILLING_BATCH_RECORDS_MAX": "0"}), ("invoicer", {})):
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", name],
            env=wrong,
            capture_output=True,
            text=True,
            check=False,
        )
        (tmp_path / name).write_text(done.stdout + done.stderr)
        [event] = logged(tmp_path / name)
        assert (done.returncode, event["event"]) == (2, "refused")
        assert next(iter(wrong), "STRIPE_API_KEY") in event["reason"]


@pytest.mark.kafka
@pytest.mark.slow
def test_through_an_outage_of_kafka_and_postgres_services_write_json_only_and_name_nobody(
    outage: Installation,
) -> None:
    kafka, logs = outage.kafka, [outage.folder / f"{name}.log" for name in ("worker", "invoicer")]
    assert isinstance(kafka, RealKafka)

    def said() -> Counter[str]:
        return Counter(str(event.get("logger", event["event"])).split(".")[0] for event in logged(*logs))

    with (
        Sandbox().start() as sandbox,
        outage.running("worker"),
        outage.running("invoicer", STRIPE_API_BASE=sandbox.url, TENANT_BILLING_METRICS_PORT="0"),
    ):
        outage.produce(inbound("one", NUMBER, OCTOBER), {"id": TENANT, "to_number": NUMBER})
        eventually(lambda: sum(outage.world.outcomes().values()) == 2)
        kafka.kill()
        eventually(lambda: all(said()[library] for library in KAFKAS))
        kafka.start()
        outage.produce(inbound("two", NUMBER, OCTOBER))
        eventually(lambda: sum(outage.world.outcomes().values()) == 3)
        cut_off(outage.world.engine)
        outage.produce(inbound("three", NUMBER, OCTOBER))
        eventually(lambda: sum(outage.world.outcomes().values()) == 4)
    text_of_all = "".join(log.read_text() for log in logs)
    assert not [name for name in (NUMBER[1:], TENANT, "sbc-1") if name in text_of_all]
    repeated = Counter(event["event"] for event in logged(*logs) if "logger" in event)
    assert max(repeated.values()) < 10


def cut_off(engine: Engine) -> None:
    """End every session but this one, as a restart of the database does."""
    with engine.connect() as connection:
        connection.execute(
            text(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
        )

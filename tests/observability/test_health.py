"""`/livez`, `/readyz` and `/metrics` of real processes say what is so."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from deploy.stack.broker import Broker
from deploy.stack.child import Child
from deploy.stack.postgres import EmbeddedPostgres
from invoicing.sandbox import Sandbox
from pipeline.database import connect
from pipeline.health import Health, PortTakenError, Pulse, door
from pipeline.metrics.catalogue import CATALOGUE
from tests.conftest import MakeTopics
from tests.observability.installation import STUCK_SECONDS, Installation, asked, eventually
from tests.world import inbound, utc

NUMBER, OCTOBER = "+12125550101", utc("2026-10-10 12:00")


@pytest.fixture
def installation(
    database: Engine, database_url: str, kafka: Broker, topics: MakeTopics, tmp_path: Path
) -> Installation:
    found = Installation(database, database_url, kafka, topics(calls=2, statements=1, periods=1), tmp_path)
    account = found.world.account()
    found.world.number(NUMBER, account, found.world.tenant(account, "a.example.com"))
    return found


def lock_out(postgres: EmbeddedPostgres, engine: Engine, *, out: bool) -> None:
    """Let nobody into the database any more, or everybody again."""
    name = engine.url.database
    outside = connect(postgres.url("postgres"), application_name="test")
    with outside.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"alter database {name} allow_connections {'false' if out else 'true'}"))
        if out:
            connection.execute(
                text("select pg_terminate_backend(pid) from pg_stat_activity where datname = :name"),
                {"name": name},
            )
    outside.dispose()


@pytest.mark.slow
def test_a_worker_is_ready_once_its_directory_and_positions_are_loaded_and_while_the_database_answers(
    installation: Installation, postgres: EmbeddedPostgres
) -> None:
    with installation.running("worker"):
        eventually(lambda: installation.says("/readyz", 503, database="ok", directory="is not loaded yet"))
        assert installation.says("/livez", 200)  # still in bootstrap: nothing is wrong with it
        installation.world.run()
        eventually(lambda: installation.says("/readyz", 200, database="ok", directory="ok", positions="ok"))
        lock_out(postgres, installation.world.engine, out=True)
        eventually(lambda: installation.ask("/readyz")[0] == 503)
        assert "cannot be reached" in installation.ask("/readyz")[1]
        time.sleep(float(STUCK_SECONDS) + 1)
        assert installation.says("/livez", 200)  # a restart would not bring the database back
        lock_out(postgres, installation.world.engine, out=False)
        eventually(lambda: installation.says("/readyz", 200))


@pytest.mark.slow
def test_a_worker_with_a_partition_that_does_not_move_is_not_live_and_is_again_once_it_moves(
    installation: Installation,
) -> None:
    installation.world.run()
    with installation.running("worker"):
        eventually(lambda: installation.says("/readyz", 200))
        with installation.world.engine.begin() as connection:
            connection.execute(text("select 1 from stream_positions for update"))
            installation.produce(inbound("one", NUMBER, OCTOBER))
            eventually(lambda: installation.says("/livez", 503))
            assert installation.says(
                "/livez", 503, partitions=f"one has not moved for more than {STUCK_SECONDS} s"
            )
            assert installation.says("/readyz", 200)
        eventually(lambda: installation.says("/livez", 200))
    assert installation.world.outcomes() == {("posted", ""): 1}


@pytest.mark.slow
def test_what_a_worker_tells_is_in_the_catalogue_and_is_what_promtool_calls_clean(
    installation: Installation, promtool: Path
) -> None:
    installation.world.run()
    installation.produce(inbound("one", NUMBER, OCTOBER), inbound("two", NUMBER, OCTOBER))
    topic = installation.topics["calls"]
    counted = f'tenant_billing_records_total{{outcome="posted",reason="",topic="{topic}"}} 2.0'
    with installation.running("worker") as worker:
        eventually(lambda: 'lag_records{partition="1"' in installation.ask("/metrics")[1])
        eventually(lambda: counted in installation.ask("/metrics")[1])
        assert doors(worker) == {"127.0.0.1"}
        scraped = installation.ask("/metrics")[1]
    assert_known(scraped)
    assert_clean(promtool, scraped)
    for secret in (NUMBER, NUMBER[2:], "a.example.com", "sbc-1"):
        assert secret not in scraped


@pytest.mark.slow
def test_an_invoicer_is_ready_once_it_hears_events_and_what_it_tells_is_in_the_catalogue(
    installation: Installation, promtool: Path
) -> None:
    installation.world.run()
    with (
        Sandbox().start() as sandbox,
        installation.running("invoicer", STRIPE_API_BASE=sandbox.url) as invoicer,
    ):
        eventually(lambda: installation.says("/readyz", 200, database="ok", events="ok", scheduler="ok"))
        assert installation.says("/livez", 200, events="ok", scheduler="ok")
        assert doors(invoicer) == {"127.0.0.1"}
        eventually(lambda: "tenant_billing_invoices{" in installation.ask("/metrics")[1])
        scraped = installation.ask("/metrics")[1]
    assert_known(scraped)
    assert_clean(promtool, scraped)


def test_a_port_that_is_taken_is_refused_in_words(installation: Installation) -> None:
    installation.world.run()
    log = installation.folder / "refused.log"
    with (
        door("127.0.0.1", installation.port, Health({}, {})),
        log.open("wb") as output,
    ):
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "worker"],
            env=installation.environment,
            stdout=output,
            stderr=output,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert (
        f"TENANT_BILLING_METRICS_PORT: port {installation.port} on 127.0.0.1 cannot be had" in log.read_text()
    )


def test_one_check_that_fails_is_enough_and_others_pages_do_not_exist() -> None:
    health = Health(ready={"one": lambda: None, "two": lambda: "is not there"}, live={"one": lambda: None})
    with door("127.0.0.1", 0, health) as port:
        assert asked(port, "/livez") == (200, '{"one": "ok"}\n')
        assert asked(port, "/readyz") == (503, '{"one": "ok", "two": "is not there"}\n')
        assert asked(port, "/")[0] == 404
        with pytest.raises(PortTakenError), door("127.0.0.1", port, health):
            pass


def test_a_check_that_raises_and_a_probe_that_hangs_up_are_logged_and_leave_no_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def broken() -> str | None:
        raise KeyError(NUMBER)

    with capture_logs() as said, door("127.0.0.1", 0, Health(ready={}, live={"one": broken})) as port:
        assert asked(port, "/livez") == (500, '{"error": "KeyError"}\n')
        with socket.create_connection(("127.0.0.1", port)) as probe:
            probe.sendall(b"GET /livez")
            probe.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )  # reset, not closed
        eventually(lambda: len(said) > 1)
    assert [event["event"] for event in said] == ["question_failed", "question_broken_off"]
    assert capfd.readouterr().err == ""


def test_a_loop_that_stands_still_is_told_only_after_a_while() -> None:
    now = [0.0]
    pulse = Pulse(lambda: now[0])
    assert pulse.begun("loop") is not None
    assert pulse.beats("loop", 10) is None  # it may not have been started yet
    pulse.beat("loop")
    now[0] = 10
    assert (pulse.begun("loop"), pulse.beats("loop", 10)) == (None, None)
    now[0] = 11
    assert pulse.beats("loop", 10) == "has stood still for more than 10 s"


def doors(service: Child) -> set[str]:
    """The addresses that a service listens on, with no setting that says where."""
    connections = psutil.Process(service.process.pid).net_connections()
    return {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}


def assert_known(scraped: str) -> None:
    """Each metric of ours is in the catalogue, of its kind, with its labels and no others."""
    catalogue = {metric.full_name.removesuffix("_total"): metric for metric in CATALOGUE}
    ours = [
        each for each in text_string_to_metric_families(scraped) if each.name.startswith("tenant_billing_")
    ]
    assert len(ours) > 10
    for family in ours:
        metric = catalogue[family.name.removesuffix("_total")]
        assert family.type == metric.kind, family.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), sample.name


def assert_clean(promtool: Path, scraped: str) -> None:
    done = subprocess.run(
        [promtool, "check", "metrics"], input=scraped, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

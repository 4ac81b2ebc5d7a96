"""What tests run on: a real Postgres, always, and Apache Kafka where Java and Maven are at hand.

Each test that asks gets a migrated database and topics of its own. Without Java or Maven, librdkafka's embedded broker
stands in, and the header says so; in CI (`CI` or `REQUIRE_KAFKA` is set) that is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from typing import Protocol

import psycopg2
import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine

from deploy.stack.broker import Broker
from deploy.stack.kafka import RealKafka, kafka_version, real_kafka_available
from deploy.stack.mock_broker import EmbeddedBroker
from deploy.stack.postgres import EmbeddedPostgres, _find_binaries
from pipeline.database import connect, migrate

# A shared machine may be slow: no test may fail for that. `nightly` looks further.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True, database=None)
settings.register_profile("nightly", settings.get_profile("dev"), max_examples=1000, print_blob=True)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")  # noqa: TID251 (how tests run)
)

_TEMPLATE = "tenant_billing_template"
_names = count(1)


class MakeTopics(Protocol):
    """Makes topics of a test's own: `topics(calls=4, sip=2)` gives `{"calls": "calls-7", "sip": "sip-7"}`."""

    def __call__(self, **partitions: int) -> dict[str, str]: ...


def pytest_report_header() -> list[str]:
    """Which broker and which Postgres this run is about."""
    obstacle = real_kafka_available()
    broker = f"Apache Kafka {kafka_version()}"
    if obstacle is not None:
        broker = (
            f"none: {obstacle}" if _kafka_required() else f"EMBEDDED (librdkafka's mock cluster): {obstacle}"
        )
    return [f"kafka: {broker}", f"postgres: {_find_binaries()}"]


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """One broker for the whole run: Apache Kafka, or the embedded one where Kafka can neither run nor is required."""
    obstacle = real_kafka_available()
    if obstacle is not None and _kafka_required():
        pytest.fail(f"Apache Kafka is required here: {obstacle}", pytrace=False)
    broker = (RealKafka() if obstacle is None else EmbeddedBroker()).start()
    yield broker
    broker.stop()


@pytest.fixture
def real_kafka(kafka: Broker) -> RealKafka:
    """The run's broker for what only Apache Kafka does; skipped without it (mark such tests `kafka`)."""
    if not isinstance(kafka, RealKafka):
        pytest.skip(f"only the embedded broker is here: {real_kafka_available()}")
    return kafka


@pytest.fixture
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """An embedded broker of this test's own, as the demo uses it."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def topics(kafka: Broker) -> MakeTopics:
    """Makes topics that no other test uses, on the run's broker."""

    def make(**partitions: int) -> dict[str, str]:
        number = next(_names)
        names = {kind: f"{kind}-{number}" for kind in partitions}
        kafka.create_topics({names[kind]: wanted for kind, wanted in partitions.items()})
        return names

    return make


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """One server for the whole run; durability is off, faults that need it start their own."""
    server = EmbeddedPostgres(options=("fsync=off", "full_page_writes=off", "max_connections=200")).start()
    _sql(server, f"create database {_TEMPLATE}")
    engine = connect(server.url(_TEMPLATE), application_name="template")
    migrate(engine)
    engine.dispose()
    yield server
    server.stop()


@pytest.fixture
def database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The address of an empty, migrated database (installation in the state `bootstrap`)."""
    name = f"test_{next(_names)}"
    _sql(postgres, f"create database {name} template {_TEMPLATE}")
    yield postgres.url(name)
    _sql(postgres, f"drop database {name} with (force)")


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    """An engine on an empty, migrated database."""
    engine = connect(database_url, application_name="test")
    yield engine
    engine.dispose()


def _kafka_required() -> bool:
    names = ("CI", "REQUIRE_KAFKA")
    return any(os.environ.get(name, "").lower() not in {"", "0", "false"} for name in names)  # noqa: TID251 (the run's own switch)


def _sql(server: EmbeddedPostgres, statement: str) -> None:
    connection = psycopg2.connect(host="127.0.0.1", port=server.port, user="postgres", dbname="postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()

"""What tests run on: a real Postgres, always; each test that asks gets a migrated database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import psycopg2
import pytest
from sqlalchemy import Engine

from deploy.stack.postgres import EmbeddedPostgres
from pipeline.database import connect, migrate

_TEMPLATE = "tenant_billing_template"
_names = count(1)


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


def _sql(server: EmbeddedPostgres, statement: str) -> None:
    connection = psycopg2.connect(host="127.0.0.1", port=server.port, user="postgres", dbname="postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()

"""The schema that migrations build, and what the database itself refuses."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from pipeline.database import alembic_config, migrate


def test_migrations_build_what_the_models_say(database: Engine) -> None:
    with database.connect() as connection:
        command.check(alembic_config(connection))


def test_migrating_twice_changes_nothing(database: Engine) -> None:
    migrate(database)


@pytest.mark.parametrize("setting", ["origin", "replica"])
def test_a_partition_of_the_ledger_cannot_be_truncated_by_its_owner(database: Engine, setting: str) -> None:
    with database.begin() as connection:
        connection.execute(text("select make_period('2026-10-01')"))
    with database.connect() as connection:
        connection.execute(text(f"set session_replication_role = {setting}"))
        with pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text("truncate usage_records_partition_2026_10"))

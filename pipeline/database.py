"""The one door to Postgres: engines and migrations."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, text

import schemas.migrations
from schemas.locks import Lock

_MIGRATIONS: Final = Path(schemas.migrations.__file__).parent


def connect(url: str, *, application_name: str, pool_size: int = 10) -> Engine:
    """An engine on Postgres; nothing is connected until it is used.

    Args:
        url: `postgresql://user:password@host:port/database`, or libpq key words in its query.
        application_name: shown in `pg_stat_activity`, so that operators see who waits for whom.
        pool_size: connections kept open at most; as many more may be opened and closed again.
    """
    return create_engine(
        url.replace("postgresql://", "postgresql+psycopg2://", 1),
        pool_size=pool_size,
        max_overflow=10,
        pool_pre_ping=True,
        hide_parameters=True,  # they name people, and errors are logged
        connect_args={
            "application_name": application_name,
            "options": "-c timezone=UTC -c client_min_messages=warning",
        },
    )


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the schema up to a revision; safe to call from several processes at once."""
    with engine.connect() as connection:
        connection.execute(text("select pg_advisory_lock(:key)"), {"key": Lock.MIGRATION})
        connection.commit()
        try:
            command.upgrade(alembic_config(connection), revision)
            connection.commit()
        finally:
            connection.rollback()
            connection.execute(text("select pg_advisory_unlock(:key)"), {"key": Lock.MIGRATION})
            connection.commit()


def alembic_config(connection: object) -> Config:
    """Alembic's configuration, in code: the project carries no ini file."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config

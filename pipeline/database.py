"""The one door to Postgres: engines, migrations, and what its errors say."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

import schemas.migrations
from schemas.locks import Lock

OWNER_ROLE: Final = "tenant_billing_migration"

_MIGRATIONS: Final = Path(schemas.migrations.__file__).parent
_LOCKED_OUT: Final = frozenset({"55P03", "40P01"})  # no lock in time, deadlock
_attempts_max: Final = 60
_lock_seconds_max: Final = 2.0
_pause_seconds: Final = 1.0


class MigrationBlockedError(RuntimeError):
    """The schema could not be changed beside what runs; the message says how to find out what is in the way."""


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
            # A network that is cut tells nobody: without these a query would wait for its answer for two hours.
            "connect_timeout": 10,
            "keepalives_idle": 20,
            "keepalives_interval": 5,
            "keepalives_count": 4,
            "tcp_user_timeout": 40_000,
        },
    )


def migrate(
    engine: Engine,
    revision: str = "head",
    *,
    attempts_max: int = _attempts_max,
    lock_seconds_max: float = _lock_seconds_max,
    pause_seconds: float = _pause_seconds,
) -> None:
    """Bring the schema up to a revision; safe beside running services, and from several processes at once.

    Each revision is a transaction of its own. It waits for a table's lock so long at most, because whoever comes after
    it waits as well; then it lets go of everything, rests and tries again.

    Raises:
        MigrationBlockedError: somebody held a lock all the time.
    """
    with engine.connect() as connection:
        connection.execute(text("select pg_advisory_lock(:key)"), {"key": Lock.MIGRATION})
        connection.execute(text(f"set lock_timeout = {int(lock_seconds_max * 1000)}"))
        _as_owner(connection)
        connection.commit()
        try:
            for attempt in range(attempts_max):
                if attempt:
                    time.sleep(pause_seconds)
                if _upgraded(connection, revision):
                    return
            raise MigrationBlockedError(
                "something holds a lock that the change needs; `select pid, application_name, xact_start, query from "
                "pg_stat_activity order by xact_start` shows the oldest transaction; end it, then migrate again"
            )
        finally:
            connection.rollback()
            connection.execute(text("reset role"))
            connection.execute(text("reset lock_timeout"))
            connection.execute(text("select pg_advisory_unlock(:key)"), {"key": Lock.MIGRATION})
            connection.commit()


def _upgraded(connection: Connection, revision: str) -> bool:
    """Whether the revision was reached; false where a lock was not to be had."""
    try:
        command.upgrade(alembic_config(connection), revision)
        connection.commit()
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) not in _LOCKED_OUT:
            raise
        connection.rollback()
        return False
    return True


def _as_owner(connection: Connection) -> None:
    """What is made belongs to the owner role, once there is one and this user may act for it."""
    connection.execute(
        text(
            "select set_config('role', rolname, false) from pg_roles where rolname = :owner "
            "and pg_has_role(rolname, 'member') and has_schema_privilege(rolname, current_schema(), 'create')"
        ),
        {"owner": OWNER_ROLE},
    )


def alembic_config(connection: object) -> Config:
    """Alembic's configuration, in code: the project carries no ini file."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def sqlstate(error: DBAPIError) -> str:
    """The five-character SQLSTATE of a database error; empty where the connection itself failed."""
    return getattr(error.orig, "pgcode", None) or ""


def first_line(error: DBAPIError) -> str:
    """The first line of what the database said, which holds no row's values."""
    return str(error.orig).strip().split("\n", 1)[0][:500] or "refused"

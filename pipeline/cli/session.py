"""What each command runs with: the settings, read once, and a database engine that is closed behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from pipeline.cli.output import Refused
from pipeline.database import connect
from pipeline.settings import Settings


def settings() -> Settings:
    """The settings; a wrong one is refused with its name."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise Refused(f"settings: {wrong}", exit_code=2) from None


@contextmanager
def database(name: str) -> Iterator[Engine]:
    """An engine on the database that the settings name; an outage is a refusal, not a traceback."""
    engine = connect(settings().database_url.get_secret_value(), application_name=f"tenant-billing {name}")
    try:
        yield engine
    except OperationalError as error:
        raise Refused(f"the database does not answer: {_first_line(error)}") from error
    finally:
        engine.dispose()


@contextmanager
def transaction(name: str) -> Iterator[Connection]:
    """One transaction that commits when the command's work is done."""
    with database(name) as engine:
        try:
            with engine.begin() as connection:
                yield connection
        except OperationalError:
            raise
        except DBAPIError as error:
            raise Refused(_first_line(error)) from error


def one_id(connection: Connection, query: str, missing: str, **parameters: object) -> int:
    """The id that a query finds.

    Raises:
        Refused: there is none; `missing` says what was looked for.
    """
    found = connection.execute(text(query), parameters).scalar_one_or_none()
    if found is None:
        raise Refused(missing)
    return int(found)


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().split("\n", 1)[0]

"""What each command runs with: the settings, read once, and a database engine that is closed behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from pipeline.cli.output import Refused
from pipeline.database import connect
from pipeline.settings import Settings

_UNDEFINED_TABLE: Final = "42P01"


def settings() -> Settings:
    """The settings; a wrong one is refused with its name."""
    try:
        return Settings.read()
    except ValidationError as error:
        wrong = "; ".join(f"{_variable(each['loc'])}: {each['msg']}" for each in error.errors())
        raise Refused(f"settings: {wrong}", exit_code=2) from None
    except (SettingsError, ValueError) as error:
        raise Refused(f"settings: {error}", exit_code=2) from None


def _variable(place: tuple[int | str, ...]) -> str:
    """The environment variable that a wrong setting was read from, with the place inside it."""
    name, *inside = [str(step) for step in place]
    variable = name if name.isupper() else f"TENANT_BILLING_{name.upper()}"
    return ".".join([variable, *inside])


@contextmanager
def database(name: str) -> Iterator[Engine]:
    """An engine on the database that the settings name; what the database says against it is a refusal."""
    url = settings().database_url.get_secret_value()
    try:
        engine = connect(url, application_name=f"tenant-billing {name}")
    except (ArgumentError, ImportError, ValueError):
        raise Refused(
            "settings: DATABASE_URL must be written as postgresql://user:password@host:port/database",
            exit_code=2,
        ) from None
    try:
        yield engine
    except DBAPIError as error:
        raise Refused(_told(error)) from error
    finally:
        engine.dispose()


@contextmanager
def transaction(name: str) -> Iterator[Connection]:
    """One transaction that commits when the command's work is done."""
    with database(name) as engine, engine.begin() as connection:
        yield connection


def _told(error: DBAPIError) -> str:
    """What the database said, in a line; without a code of its own it was not reached."""
    line = str(error.orig).strip().split("\n", 1)[0]
    code = getattr(error.orig, "pgcode", None)
    if code is None and isinstance(error, OperationalError):
        return f"the database does not answer: {line}"
    return f"{line} (`tenant-billing migrate` makes it)" if code == _UNDEFINED_TABLE else line

"""Login users of the application roles, as an operator would make them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
import structlog
from sqlalchemy import Engine, make_url, text

from pipeline.cli import main
from pipeline.database import connect

ROLES = ("ingest", "close", "invoicing", "directory", "reading")

UrlAs = Callable[[str], str]
EngineAs = Callable[[str], Engine]


@pytest.fixture
def url_as(database: Engine, database_url: str) -> UrlAs:
    """The database's address for a login user who is granted one application role and nothing else."""
    for role in (*ROLES, "migration"):
        with database.begin() as connection:
            connection.execute(
                text(f"""
                    do $$ begin
                        if not exists (select from pg_roles where rolname = 'only_{role}') then
                            create role only_{role} login in role tenant_billing_{role};
                        end if;
                    end $$""")
            )

    def url(role: str) -> str:
        return make_url(database_url).set(username=f"only_{role}").render_as_string(hide_password=False)

    return url


@pytest.fixture
def engine_as(url_as: UrlAs) -> Iterator[EngineAs]:
    engines: dict[str, Engine] = {}

    def engine(role: str) -> Engine:
        if role not in engines:
            engines[role] = connect(url_as(role), application_name=role)
        return engines[role]

    yield engine
    for each in engines.values():
        each.dispose()


@pytest.fixture
def type_(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Callable[..., str]]:
    """What an operator types, with the database's address that is given; what came back on standard output."""

    def run(url: str, *arguments: str, code: int = 0) -> str:
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setattr(sys, "argv", ["tenant-billing", *arguments])
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = (stream.decode() for stream in capsysbinary.readouterr())
        assert (ended.value.code or 0) == code, (arguments, out, err)
        return out + err

    yield run
    structlog.reset_defaults()

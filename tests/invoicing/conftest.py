"""The sandbox, the small carrier and the command line that the invoicing tests run on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import structlog
from sqlalchemy import Engine

from invoicing.sandbox import Sandbox
from rollup.months_store import database_now
from tests.invoicing.builders import World, utc


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


CommandLine = Callable[..., Said]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox().start() as running:
        yield running


@pytest.fixture
def world(database: Engine, sandbox: Sandbox) -> World:
    """3 June 2026, an hour after May's statements could be generated at the earliest."""
    return World.made(database, sandbox, utc(2026, 6, 3, 1))


@pytest.fixture
def type_(
    world: World,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> Iterator[CommandLine]:
    """What an operator types, now: the world's clock is the database's, which the commands go by."""
    from pipeline.cli import main  # noqa: PLC0415 (only tests that type need the whole program)

    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("STRIPE_API_BASE", world.sandbox.url)
    monkeypatch.delenv("STRIPE_API_KEY", raising=False)
    with world.engine.begin() as connection:
        world.clock.move(database_now(connection))

    def run(*arguments: str, code: int = 0) -> Said:
        monkeypatch.setattr(sys, "argv", ["tenant-billing", *arguments])
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = (stream.decode() for stream in capsysbinary.readouterr())
        said = Said(ended.value.code if isinstance(ended.value.code, int) else 0, out, err)
        assert said.code == code, said
        assert "Traceback" not in said.err
        return said

    yield run
    structlog.reset_defaults()

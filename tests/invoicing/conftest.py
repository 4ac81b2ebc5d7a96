"""The sandbox and the small carrier that the invoicing tests run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from invoicing.sandbox import Sandbox
from tests.invoicing.builders import World, utc


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox().start() as running:
        yield running


@pytest.fixture
def world(database: Engine, sandbox: Sandbox) -> World:
    """3 June 2026, an hour after May's statements could be generated at the earliest."""
    return World.made(database, sandbox, utc(2026, 6, 3, 1))

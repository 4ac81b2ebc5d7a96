"""A world for each acceptance test."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from tests.world import World


@pytest.fixture
def world(database: Engine) -> World:
    """A fresh installation in the state bootstrap; `world.run()` ends that."""
    return World(database)

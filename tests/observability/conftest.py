"""promtool, wherever it can be had: always in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.stack.promtool import PromtoolUnavailableError
from deploy.stack.promtool import promtool as find_promtool


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus's checker; where it can neither be found nor fetched, tests with it are skipped, but never in CI."""
    try:
        return find_promtool()
    except PromtoolUnavailableError as error:
        wanted = [os.environ.get(name, "") for name in ("CI", "REQUIRE_PROMTOOL")]  # noqa: TID251 (the run's own switch)
        if any(value.lower() not in {"", "0", "false"} for value in wanted):
            pytest.fail(f"promtool is required here: {error}", pytrace=False)
        pytest.skip(str(error))

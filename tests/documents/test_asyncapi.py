"""schemas/asyncapi.json is an AsyncAPI document to AsyncAPI's own parser, wherever that can be had: always in CI."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from deploy.stack.asyncapi_parser import AsyncapiParserUnavailableError, faults

SCHEMAS = Path(__file__).parents[2] / "schemas"


def found(document: Path) -> list[str]:
    """Faults; without the parser the test is skipped, but never in CI."""
    try:
        return faults(document)
    except AsyncapiParserUnavailableError as error:
        wanted = [os.environ.get(name, "") for name in ("CI", "REQUIRE_ASYNCAPI")]  # noqa: TID251 (the run's own switch)
        if any(value.lower() not in {"", "0", "false"} for value in wanted):
            pytest.fail(f"AsyncAPI's parser is required here: {error}", pytrace=False)
        pytest.skip(str(error))


def test_its_parser_finds_no_fault_with_the_document() -> None:
    assert found(SCHEMAS / "asyncapi.json") == []


def test_it_would_find_one(tmp_path: Path) -> None:
    shutil.copytree(SCHEMAS / "json", tmp_path / "json")
    document = json.loads((SCHEMAS / "asyncapi.json").read_text())
    next(iter(document["operations"].values()))["action"] = "shout"
    (tmp_path / "asyncapi.json").write_text(json.dumps(document))
    assert any("action" in fault for fault in found(tmp_path / "asyncapi.json"))

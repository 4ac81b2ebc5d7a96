"""What an operator types about quarantine and conservation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.cli.output import Refused
from tests.world import World, inbound, utc

SEPTEMBER = utc("2026-09-10 12:00")


@pytest.fixture
def world(database: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """One posted record, one that needs a tariff, two that are no records."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    world = World(database)
    world.number("+12125550101", world.account(), None)
    world.run()
    unpriced = {**inbound("b", "+12125550101", SEPTEMBER), "cost": None}
    world.receive(inbound("a", "+12125550101", SEPTEMBER), unpriced, b"no", b"record", at=SEPTEMBER)
    return world


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def answer(*arguments: str) -> Any:
    said = typed(*arguments, "--json")
    assert said.exit_code == 0, said
    return json.loads(said.stdout)


def test_quarantine_is_replayed_and_discarded(world: World) -> None:
    world.tariff(1, "inbound_conversational", "0.01")
    foretold = answer("quarantine", "replay", "--dry-run")
    assert foretold == [
        {"outcome": "posted", "reason": "", "records": 1},
        {"outcome": "quarantined", "reason": "unreadable", "records": 2},
    ]
    assert answer("quarantine", "replay", "--reason", "unrated", "--input", "calls.raw") == foretold[:1]
    assert "no such record is in quarantine" in typed("quarantine", "replay", "--reason", "unrated").stdout
    [first, _] = answer("quarantine", "list")
    assert answer("quarantine", "discard", "--reason", "unreadable", "--id", str(first["id"])) == {
        "discarded": 1
    }
    because = ("--because", "a test of the switch")
    said = typed("quarantine", "discard", "--reason", "unreadable", *because)
    assert "1 records were discarded" in said.output
    assert answer("quarantine", "list") == []
    resolutions = [each["resolution"] for each in answer("quarantine", "list", "--all")]
    assert resolutions == ["posted", "discarded", "a test of the switch"]


def test_discarding_needs_a_reason(world: World) -> None:
    assert typed("quarantine", "discard").exit_code == 2


def test_conservation_is_told_by_topic_and_its_violation_is_an_exit_code(world: World) -> None:
    said = answer("conservation", "--count-rows")
    assert (said["holds"], said["received"], said["posted"], said["quarantined"]) == (True, 4, 1, 3)
    assert [(each["topic"], each["ledger"]) for each in said["topics"]] == [("calls.raw", 1)]
    assert "received" in typed("conservation").stdout
    with world.engine.begin() as connection:
        connection.execute(text("delete from quarantine where reason = 'unrated'"))
    violated = typed("conservation", "--json")
    assert isinstance(violated.exception, Refused)
    assert violated.exception.exit_code == 1
    assert "calls.raw: quarantined is 3, records kept in quarantine 2" in str(violated.exception)
    assert json.loads(violated.stdout)["holds"] is False


def test_an_installation_without_months_has_nothing_to_replay(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert answer("quarantine", "replay") == []
    assert answer("conservation")["holds"] is True


def test_reconcile_and_status_are_told(world: World) -> None:
    assert answer("reconcile") == []
    assert answer("reconcile", "--period", "2026-09") == []
    with world.engine.begin() as connection:
        connection.execute(text("update monthly_usage set cost = cost + 1"))
        connection.execute(
            text("update periods set state = 'sealed', sealed_at = now() where period = '2026-09-01'")
        )
    assert answer("reconcile", "--period", "2026-10") == []
    differs = typed("reconcile", "--json")
    assert isinstance(differs.exception, Refused)
    assert [each["kind"] for each in json.loads(differs.stdout)] == ["monthly_usage"]
    [sealed, *_] = answer("period", "status")
    assert sealed["waits_for"] == [
        "its statements, which are made next: `period close 2026-09` says what stops them"
    ]

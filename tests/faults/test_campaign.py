"""The campaign itself: the same seed plans the same faults, its audit sees what is wrong, and twenty kills change nothing."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from deploy.faults.audit import Event, Found, audit
from deploy.faults.audit_store import MonthSum, Row
from deploy.faults.plan import POINTS, Point, months_closed, plan
from deploy.faults.traffic import Traffic, Usage
from schemas.periods import Period

NOBODYS = Usage(
    account=None,
    tenant=None,
    usage_class="inbound_conversational",
    month="2026-10",
    answered=True,
    answered_seconds=Decimal(60),
    billed_seconds=60,
    cost=Decimal("0.010000"),
)
ROW = Row("a", NOBODYS, date(2026, 10, 1), late=False)
FOUND = Found(
    ledger=[ROW],
    sums=[
        MonthSum(
            None, None, "inbound_conversational", date(2026, 10, 1), 1, Decimal(60), 60, Decimal("0.010000")
        )
    ],
    outcomes={("posted", ""): 1},
    statements=[],
    statement_events=[],
    period_events=[],
    received=1,
)


def test_the_same_seed_plans_the_same_faults_and_another_seed_others() -> None:
    assert plan(7, 200) == plan(7, 200)
    assert plan(7, 200) != plan(8, 200)
    assert sum(fault.kind.startswith("kill") for fault in plan(7, 200)) == 200


def test_twenty_kills_come_past_every_named_point() -> None:
    faults = plan(7, 20)
    assert {fault.point for fault in faults if fault.kind == "kill at point"} == {
        point.name for point in POINTS
    }
    assert months_closed(faults) + 2 <= 12


def test_the_same_seed_sends_the_same_messages() -> None:
    months = (Period.parse("2026-09"), Period.parse("2026-10"))
    one, other = Traffic(7, months), Traffic(7, months)
    assert list(one.stories(500)) == list(other.stories(500))
    assert (one.usage, one.others) == (other.usage, other.others)


def test_the_audit_finds_nothing_where_nothing_is_wrong() -> None:
    verdict = audit({"a": NOBODYS}, Counter(), [], FOUND)
    assert (verdict.lost, verdict.doubled, verdict.findings) == (0, 0, [])


WRONG = {
    "lost": replace(FOUND, ledger=[]),
    "twice": replace(FOUND, ledger=[*FOUND.ledger, *FOUND.ledger]),
    "a stranger": replace(FOUND, ledger=[*FOUND.ledger, ROW._replace(record_id="b")]),
    "another cost": replace(FOUND, ledger=[ROW._replace(usage=NOBODYS._replace(cost=Decimal("0.01001")))]),
    "another month": replace(FOUND, ledger=[ROW._replace(period=date(2026, 11, 1))]),
    "sums": replace(FOUND, sums=[FOUND.sums[0]._replace(attempts=2)]),
    "counts": replace(FOUND, outcomes={("posted", ""): 2}),
    "not all received": replace(FOUND, received=2),
}


@pytest.mark.parametrize("found", WRONG.values(), ids=WRONG)
def test_the_audit_finds_what_is_wrong(found: Found) -> None:
    assert audit({"a": NOBODYS}, Counter(), [], found).findings


def test_the_audit_finds_a_month_told_before_its_last_statement_was_first_heard() -> None:
    told = b'{"account": "a", "period": "2026-10", "sha256": ""}'
    statements = [Event("one", told, 1), Event("two", told, 5), Event("one", told, 9)]
    for sent_at, early in ((4, True), (6, False)):
        found = replace(
            FOUND,
            statement_events=statements,
            period_events=[Event("month", told, sent_at), Event("month", told, 9)],
        )
        findings = audit({"a": NOBODYS}, Counter(), [], found).findings
        assert ("a was told of 2026-10 before its last statement" in findings) == early


@pytest.mark.parametrize("point", POINTS, ids=[point.name for point in POINTS])
def test_each_named_point_is_a_function_of_the_product(point: Point) -> None:
    """Names are looked up in the workers only, where one that is gone ends them before they begin."""
    found: Any = importlib.import_module(point.module)
    for name in point.function.split("."):
        found = getattr(found, name)
    assert callable(found)


@pytest.mark.slow
@pytest.mark.kafka
def test_twenty_kills_and_ten_other_faults_lose_and_double_nothing(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "deploy.faults", "--seed", "1", "--count", "20", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads(report.read_text())
    assert (told["lost"], told["doubled"], told["findings"]) == (0, 0, [])
    assert sum(times for kind, times in told["faults"].items() if kind.startswith("kill")) >= 20

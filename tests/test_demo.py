"""`make demo` and `make up` as someone sees them who starts them for the first time."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.demo import _LOGS
from deploy.sample.carrier import sample_carrier
from deploy.stack.running import SERVICES, RunningStack, ServiceEndedError
from schemas.periods import Period
from tests.logged import logged

ROOT = Path(__file__).parents[1]
OUTCOMES = ("posted", "duplicate", "held", "quarantined", "ignored", "context")
_start_seconds_max = 60.0


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of a small demo on the embedded broker; it must have ended well."""
    summary = tmp_path_factory.mktemp("demo") / "summary.json"
    command = [sys.executable, "-m", "deploy.demo", "--calls", "400", "--seed", "3", "--json", str(summary)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(summary.read_bytes())
    return said


@pytest.mark.slow
def test_every_count_is_what_the_generator_knows(demo: dict[str, Any]) -> None:
    assert (demo["ok"], demo["differences"], demo["gap_records"]) == (True, [], 0)


@pytest.mark.slow
def test_every_message_is_accounted_for(demo: dict[str, Any]) -> None:
    line = demo["conservation"]
    assert line["received"] == sum(line[outcome] for outcome in OUTCOMES) == demo["acknowledged"]
    assert line["held"] == 0
    assert line["holds"]


@pytest.mark.slow
def test_each_tenant_has_one_statement_and_each_account_one_for_the_rest(demo: dict[str, Any]) -> None:
    owners = [(each["account"], each["tenant"]) for each in demo["statements"]]
    assert len(owners) == len(set(owners)) == 16
    assert {account for account, tenant in owners if tenant is None} == {"northstar", "rheinfunk"}


@pytest.mark.slow
def test_invoices_went_out_and_phantoms_cost_their_account(demo: dict[str, Any]) -> None:
    states = {each["tenant"]: each["state"] for each in demo["invoices"]}
    assert states["bigcustomer.mypbx.com"] == "sent"
    assert states["unbilled.example.com"] == "not_billed"
    assert states["silent.example.com"] == "nothing_to_bill"
    assert "tiny.example.com" in {each["tenant"] for each in demo["phantom_fees"]}


@pytest.mark.slow
def test_the_logs_are_json_lines_one_for_each_batch_and_name_nobody(demo: dict[str, Any]) -> None:
    events = logged(*(ROOT / _LOGS / f"{name}.log" for name in SERVICES))
    batches = [event for event in events if event["event"] == "batch"]
    assert sum(batch["records"] for batch in batches) == demo["acknowledged"]
    assert all(sum(batch["outcomes"].values()) == batch["records"] for batch in batches)
    assert {"statements_received", "released"} <= {event["event"] for event in events}
    for event in events:
        assert not _said_in(event) & _names(Period.parse(demo["period"])), event


@pytest.mark.slow
def test_up_says_where_everything_is_and_stops_all_of_it() -> None:
    command = [sys.executable, "-u", "-m", "deploy.up"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as up:
        said = _read_until(up, "Ctrl-C stops everything")
        children = psutil.Process(up.pid).children(recursive=True)
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0
    assert "export DATABASE_URL=postgresql://" in said
    assert "export KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:" in said
    assert len(children) >= 5  # broker, Postgres, sandbox, worker, invoicer
    assert psutil.wait_procs(children, timeout=10)[1] == []


def test_a_service_that_ends_by_itself_is_named_with_its_log(tmp_path: Path) -> None:
    refused = {"TENANT_BILLING_BATCH_RECORDS_MAX": "0"}
    with RunningStack(tmp_path, refused) as stack:
        stack.start_service("worker")
        with pytest.raises(ServiceEndedError, match=r"the worker ended by itself; its log is .*worker\.log"):
            _check_for_a_while(stack)


def _names(period: Period) -> set[str]:
    """Everybody's names, numbers and addresses in the demo, as words."""
    carrier = sample_carrier(period)
    owners = [each for tenant in carrier.tenants for each in (tenant.code, tenant.name)]
    accounts = [
        each for account in carrier.accounts for each in (account.code, account.name, account.stripe_account)
    ]
    assets = [each.number for each in carrier.numbers] + [each.network for each in carrier.networks]
    return {word for each in (*owners, *accounts, *assets) if each for word in each.lower().split()}


def _said_in(event: dict[str, Any]) -> set[str]:
    return set(re.findall(r"[\w.:/+-]+", json.dumps(event).lower()))


def _check_for_a_while(stack: RunningStack) -> None:
    deadline = time.monotonic() + _start_seconds_max
    while time.monotonic() < deadline:
        stack.check()
        time.sleep(0.1)


def _read_until(process: subprocess.Popen[str], words: str) -> str:
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"it ended before it said {words!r}:\n{said}")

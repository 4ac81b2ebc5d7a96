"""README.md's "Running it for real", in its order: an empty database, an empty Kafka, the files of deploy/examples."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import text

from deploy.stack.child import Child
from deploy.stack.kafka import RealKafka
from deploy.stack.postgres import EmbeddedPostgres
from invoicing.sandbox import Sandbox
from pipeline.clock import utc_now
from pipeline.database import connect
from tests.documents.page import ROOT, months, shell_environment

EXAMPLES: Final = ROOT / "deploy/examples"
ACCOUNT, TENANT, NUMBER = "reseller", "bigcustomer.mypbx.com", "+12125550100"
# As it stands on the page → as it is typed here, and words of the answer.
FOR_REAL: Final = {
    "tenant-billing topics create": ("topics create --replication 1", "statements.closed"),
    "DATABASE_URL=… tenant-billing migrate": ("migrate", "the schema is up to date"),
    "tenant-billing import accounts FILE.csv": (
        f"import accounts {EXAMPLES / 'accounts.csv'}",
        "1 accounts imported",
    ),
    "tenant-billing tariff add ACCOUNT CLASS COST": (
        f"tariff add {ACCOUNT} inbound_conversational 0.006 --increments 60/6",
        "0.006",
    ),
    "tenant-billing bootstrap finish --first-period 2026-10": (
        "bootstrap finish --first-period 2026-10",
        "workers may consume",
    ),
    "tenant-billing worker": ("worker", ""),
    "tenant-billing invoicer": ("invoicer", ""),
    "tenant-billing stripe link ACCOUNT acct_…": (
        f"stripe link {ACCOUNT} acct_reseller",
        "sends its invoices through acct_reseller",
    ),
    "tenant-billing tenant validate-address ACCOUNT TENANT": (
        f"tenant validate-address {ACCOUNT} {TENANT}",
        "valid",
    ),
    "tenant-billing profile apply ACCOUNT TENANT profile.yaml": (
        f"profile apply {ACCOUNT} {TENANT} {EXAMPLES / 'profile.yaml'}",
        "is billed on day 20",
    ),
}
PATIENCE_SECONDS: Final = 90.0


class Installation:
    """The commands typed against one database and one Kafka, and the services that were started so far."""

    def __init__(self, settings: dict[str, str], folder: Path, running: ExitStack) -> None:
        self._environment = shell_environment(ROOT) | settings
        self._folder = folder
        self._running = running
        self._services: dict[str, Child] = {}

    def type(self, words: str, code: int = 0) -> str:
        """All that a command said; it must end with that code."""
        for stands, means in months().items():
            words = words.replace(stands, means)
        done = subprocess.run(
            ["tenant-billing", *shlex.split(words)],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == code, (words, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def start(self, service: str) -> None:
        """Start a service, which is stopped at the end and must end by itself then."""
        with (self._folder / f"{service}.log").open("wb") as log:
            child = Child(["tenant-billing", service], stdout=log, environment=self._environment)
        self._services[service] = child
        self._running.callback(child.stop, 30)

    def until(self, words: str, answer: str) -> str:
        """Type it until it says that; what is under way takes its time."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while answer not in (said := self.type(words)):
            assert time.monotonic() < deadline, (words, said, self.logs)
            assert all(child.running for child in self._services.values()), self.logs
            time.sleep(0.5)
        return said

    @property
    def logs(self) -> str:
        """What the services said."""
        return "".join((self._folder / f"{name}.log").read_text() for name in self._services)


@pytest.fixture
def empty_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The address of a database in which nothing is."""
    admin = connect(postgres.url(), application_name="test").execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("create database for_real"))
    yield postgres.url("for_real")
    with admin.connect() as connection:
        connection.execute(text("drop database for_real with (force)"))
    admin.dispose()


@pytest.fixture
def installation(empty_database: str, real_kafka: RealKafka, tmp_path: Path) -> Iterator[Installation]:
    """Settings as the page tells to make them, for a Kafka of this test's own, in which no topic is."""
    assert real_kafka.real
    key = tmp_path / "stripe-key"
    key.write_text("sk_test_for_the_sandbox")
    with ExitStack() as running:
        kafka = running.enter_context(RealKafka(tmp_path / "kafka"))
        sandbox = running.enter_context(Sandbox().start())
        settings = {
            "DATABASE_URL": empty_database,
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "STRIPE_API_KEY_FILE": str(key),
            "STRIPE_API_BASE": sandbox.url,
        }
        yield Installation(settings, tmp_path, running)


@pytest.mark.kafka
@pytest.mark.slow
def test_what_the_page_tells_to_type_for_real_works_in_its_order_from_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    assert "`tenant-billing migrate` makes it" in installation.type("period status", code=1)
    assert "missing" in installation.type("topics check", code=1)
    for typed, words in FOR_REAL.values():
        if typed in {"worker", "invoicer"}:
            installation.start(typed)
            continue
        assert words in installation.type(typed)
        if typed.startswith("import accounts"):
            for kind in ("tenants", "numbers", "ips"):
                installation.type(f"import {kind} {EXAMPLES / kind}.csv")
    (tmp_path / "call.jsonl").write_text(json.dumps(a_call()) + "\n")
    installation.type("publish calls.raw call.jsonl")
    installation.until(f"usage --account {ACCOUNT}", "inbound_conversational")
    assert "Cloud PBX: 1 at USD 25" in installation.type(f"invoice preview {ACCOUNT} {TENANT} 2026-11")
    assert '"level": "error"' not in installation.logs


def a_call() -> dict[str, object]:
    """A call to the imported number, that began a moment ago."""
    return {
        "id": "first",
        "switch": "sbc-1",
        "service": "call",
        "direction": "inbound",
        "from_number": "+13035550101",
        "to_number": NUMBER,
        "started_at": utc_now().isoformat(),
        "answered_seconds": "60",
    }

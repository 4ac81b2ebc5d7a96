"""The campaign: statements are told of, twice and in any order, while requests fail and processes die; then the audit."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer
from rich.console import Console

from deploy.invoice_faults import world_store
from deploy.invoice_faults.audit import differences
from deploy.invoice_faults.stage import INVOICERS, Counts, Stage
from deploy.invoice_faults.statements import CLOSED_AT, Expected, Made, make
from deploy.stack import sandbox_door
from deploy.stack.child import Child
from deploy.stack.mock_broker import EmbeddedBroker
from deploy.stack.postgres import EmbeddedPostgres
from pipeline.database import connect, migrate
from schemas.events import STATEMENT_CLOSED, StatementClosed, cloud_event_headers
from schemas.statements import canonical_json, sha256_hex

FAULT_SHARE: Final = 0.20
DAY_OFF: Final = timedelta(hours=25)  # longer than Stripe keeps an idempotency key
BILLED_BY: Final = timedelta(days=40)
_TOPIC: Final = "statements.closed"
_PARTITIONS: Final = 8
_kill_after_seconds_max: Final = 20.0
_seconds_max: Final = 120.0
_seconds_per_statement_max: Final = 2.0

_FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"action": "status", "status": 429},
    {"action": "status", "status": 429, "should_retry": True},
    {"action": "status", "status": 429, "should_retry": False},
    {"action": "status", "status": 500},
    {"action": "status", "status": 500, "saved": True},
    {"action": "status", "status": 500, "saved": True, "commit": True},
    {"action": "status", "status": 503},
    {"action": "status", "status": 503, "commit": True},
    {"action": "reset"},
    {"action": "reset", "commit": True},
    {"action": "slow", "seconds": 0.3},
    {"action": "slow", "seconds": 0.3, "commit": True},
    {"action": "slow", "seconds": 1.6},  # longer than the invoicers wait: done after they gave up
    {"action": "slow", "seconds": 1.6, "commit": True},  # the same: done before, and its reply is lost
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found (nothing, if all is well), and what happened on the way."""

    findings: list[str]
    expected: Sequence[Expected]
    counts: Counts
    events: int
    requests: int
    faults: dict[str, int]
    seconds: float


def run(console: Console, *, seed: int, count: int, kills: int) -> Outcome:
    """Run the campaign; the same seed gives the same statements and the same plan of faults."""
    made = make(count, seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="invoice-faults-")))
        postgres = EmbeddedPostgres(options=("fsync=off", "full_page_writes=off", "max_connections=200"))
        postgres.start()
        stack.callback(postgres.stop)
        broker = stack.enter_context(EmbeddedBroker({_TOPIC: _PARTITIONS}))
        sandbox_url = stack.enter_context(sandbox_process(folder))
        engine = connect(postgres.url(), application_name="campaign")
        stack.callback(engine.dispose)
        migrate(engine)
        with engine.begin() as connection:
            world_store.write_world(connection, made)
        addresses = {
            "DATABASE_URL": postgres.url(),
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "STRIPE_API_BASE": sandbox_url,
        }
        stage = Stage(folder, engine, addresses, CLOSED_AT)
        stack.callback(stage.stop)
        telling = Telling(broker.bootstrap_servers, made, random.Random(seed))  # noqa: S311 (repeatable, no secrets)
        return Play(console, stage, telling, made, kills, seed).play(sandbox_url)


class Play:
    """One run of it."""

    def __init__(
        self, console: Console, stage: Stage, telling: Telling, made: Sequence[Made], kills: int, seed: int
    ) -> None:
        self._console = console
        self._stage = stage
        self._telling = telling
        self._expected = [each.expected for each in made]
        self._kills = kills
        self._dice = random.Random(seed + 1)  # noqa: S311 (same)
        self._killed_at = time.monotonic()
        self._ends_at = time.monotonic() + _seconds_max + _seconds_per_statement_max * len(made)

    def play(self, sandbox_url: str) -> Outcome:
        """All of it, to the audit."""
        started = time.monotonic()
        sandbox_door.script_faults(sandbox_url, _faults(), seed=self._dice.randrange(1_000_000))
        self._stage.start_all()
        self._make_invoices()
        self._see_them_sent()
        self._stage.stop()
        state = sandbox_door.whole_state(sandbox_url)
        with self._stage.engine.begin() as connection:
            rows, fees = world_store.recorded(connection), world_store.fees(connection)
        counts = self._stage.counts
        findings = differences(self._expected, state["accounts"], rows, fees)
        findings += [f"an invoicer ended by itself: {end}" for end in counts.other_ends]
        if counts.died_of_frost < counts.freezes:
            findings.append(f"{counts.freezes - counts.died_of_frost} frozen invoicers went on")
        return Outcome(
            findings=findings,
            expected=self._expected,
            counts=counts,
            events=self._telling.told,
            requests=state["requests"],
            faults=state["faults"],
            seconds=time.monotonic() - started,
        )

    def _make_invoices(self) -> None:
        count, settled = len(self._expected), 0
        while settled < count or not self._telling.is_done or self._stage.counts.kills < self._kills:
            self._stage.tick()
            self._telling.tell_some()
            with self._stage.engine.begin() as connection:
                settled = world_store.settled(connection)
            threshold = count * (self._stage.counts.kills + 1) / (self._kills + 1)
            overdue = time.monotonic() - self._killed_at > _kill_after_seconds_max
            if self._stage.counts.kills < self._kills and (settled >= threshold or overdue):
                self._strike()
                self._show(settled)
            if time.monotonic() > self._ends_at:
                return

    def _strike(self) -> None:
        """Something happens to the invoicers: mostly one is killed."""
        one, draw = self._dice.choice(INVOICERS), self._dice.random()
        if draw < 0.15:
            self._stage.pass_over(DAY_OFF)
        elif draw < 0.25:
            self._stage.freeze(one)
            self._stage.kill(one)
        else:
            self._stage.kill(one)
        if self._dice.random() < 0.3:
            self._stage.cut_sessions(INVOICERS)
        self._killed_at = time.monotonic()

    def _see_them_sent(self) -> None:
        self._stage.pass_over(BILLED_BY)
        self._telling.tell_again()
        left = 1
        while left and time.monotonic() < self._ends_at:
            self._stage.tick()
            with self._stage.engine.begin() as connection:
                left = world_store.unsent(connection)

    def _show(self, settled: int) -> None:
        counts = self._stage.counts
        self._console.print(
            f"{settled:,} of {len(self._expected):,} statements settled; {counts.kills} killed, {counts.freezes} "
            f"frozen, {counts.sessions_cut} database sessions cut, {counts.days_passed_over} days passed over",
            highlight=False,
        )


class Telling:
    """Tells of each statement one to three times, in no order, a little at a time."""

    def __init__(self, bootstrap_servers: str, made: Sequence[Made], dice: random.Random) -> None:
        settings = {"bootstrap.servers": bootstrap_servers, "compression.type": "zstd", "log_level": 0}
        self._producer = Producer(settings)
        self._events = [each for each in made for _ in range(dice.choice((1, 1, 2, 3)))]
        self._again = dice.sample(list(made), max(1, len(made) // 10))
        self._at_once = max(1, len(self._events) // 40)
        dice.shuffle(self._events)
        self.told = 0

    @property
    def is_done(self) -> bool:
        """Whether everything was told."""
        return not self._events

    def tell_some(self) -> None:
        """A few more events."""
        now, self._events = self._events[: self._at_once], self._events[self._at_once :]
        self._tell(now)

    def tell_again(self) -> None:
        """Some of them once more, long after they were done."""
        self._tell(self._again)

    def _tell(self, some: Sequence[Made]) -> None:
        for each in some:
            headers = cloud_event_headers(
                each.statement.statement_id, STATEMENT_CLOSED, "campaign", CLOSED_AT
            )
            self._producer.produce(_TOPIC, _event(each), headers=list(headers.items()))
        self._producer.flush(30)
        self.told += len(some)


def _event(each: Made) -> bytes:
    statement = each.statement
    return canonical_json(
        StatementClosed(
            statement_id=statement.statement_id,
            kind=statement.kind,
            account=statement.account,
            tenant=statement.tenant,
            period=statement.period,
            currency=statement.currency,
            total_cost=statement.totals.total_cost,
            sha256=sha256_hex(statement.canonical_bytes()),
            closed_at=CLOSED_AT,
            statement=statement,
        )
    )


def _faults() -> list[dict[str, Any]]:
    """Each kind with the same share of all requests: a rule is asked only where the ones before it let pass."""
    share = FAULT_SHARE / len(_FAULTS)
    return [
        {**fault, "method": "", "times": None, "rate": share / (1 - share * position)}
        for position, fault in enumerate(_FAULTS)
    ]


@contextmanager
def sandbox_process(folder: Path) -> Iterator[str]:
    """The sandbox as a process of its own, its errors in a folder; yields its address."""
    with (folder / "sandbox.log").open("wb") as errors:
        arguments = [sys.executable, "-m", "invoicing.sandbox", "--port", "0"]
        child = Child(arguments, stdout=subprocess.PIPE, stderr=errors.fileno())
    with closing(child.process.stdout) as said:  # type: ignore[type-var] # a pipe, as asked for above
        assert said is not None
        yield said.readline().decode().strip()
        child.stop(5)

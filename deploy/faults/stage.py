"""What the campaign plays on: Kafka and Postgres behind a network of our own, and three workers; and what befalls them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, Self

from sqlalchemy import Engine

from deploy.faults import program, world_store
from deploy.faults.plan import CLOSING, WORKERS, Fault
from deploy.faults.proxy import Proxy
from deploy.faults.traffic import PARTITIONS
from deploy.stack.kafka import RealKafka, free_port
from deploy.stack.postgres import EmbeddedPostgres, PostgresUnavailableError
from pipeline.database import connect, migrate
from schemas.periods import Period

_EVENT_PARTITIONS: Final = {"statements.closed": 2, "periods.closed": 1}
_point_seconds_max: Final = 20.0
_start_attempts_max: Final = 50
_look_seconds: Final = 0.05
_tail_characters: Final = 3000
_OURS: Final = ("TENANT_BILLING_", "STRIPE_", "DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS")


class Stage:
    """Everything that runs. `counts` and `restarts` say what befell it; a worker that ends is started again."""

    def __init__(self, folder: Path, months: tuple[Period, ...]) -> None:
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.restarts: Counter[str] = Counter()
        self._months = months
        self._closing = 0
        self._laid: set[str] = set()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["deploy.faults.program"])
        self._workers: list[BaseProcess | None] = [None] * WORKERS
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.postgres = EmbeddedPostgres(self.folder / "postgres", options=("max_connections=200",))
            self.postgres.start()
            stack.callback(self.postgres.stop)
            self.engine: Engine = connect(self.postgres.url(), application_name="campaign")
            stack.callback(self.engine.dispose)
            migrate(self.engine)
            with self.engine.begin() as connection:
                world_store.make_world(
                    connection, (*self._months, *(self._months[-1].plus(n) for n in range(1, 5)))
                )
            self.postgres_network = stack.enter_context(Proxy(self.postgres.port))
            inner_port = free_port()
            self.kafka_network = stack.enter_context(Proxy(inner_port, free_port()))
            advertised = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.kafka_network.port}"}
            self.kafka = RealKafka(self.folder / "kafka", inner_port, settings=advertised)
            self.kafka.start()
            stack.callback(self.kafka.stop)
            self.kafka.create_topics(PARTITIONS)
            self.kafka.create_topics(_EVENT_PARTITIONS, log_append_time=False)
            stack.callback(self._stop_workers)
            self._stack = stack.pop_all()
        self.tick()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def bootstrap_servers(self) -> str:
        """Kafka, through the network."""
        return f"127.0.0.1:{self.kafka_network.port}"

    def tick(self) -> None:
        """Start the workers that do not run."""
        for place, worker in enumerate(self._workers):
            if worker is None or worker.exitcode is not None:
                if worker is not None:
                    self.restarts[
                        "killed" if worker.exitcode == -signal.SIGKILL else "ended by themselves"
                    ] += 1
                self._workers[place] = self._start(place)

    def befall(self, fault: Fault) -> None:
        """Let one fault happen, and end; what it did is counted by its kind."""
        match fault.kind:
            case "kill":
                self._signal(fault.worker, signal.SIGKILL)
            case "kill at point" | "freeze at point":
                self._at_point(fault)
                return
            case "freeze":
                self._signal(fault.worker, signal.SIGSTOP)
                self._thaw(self._pid(fault.worker))
            case "postgres killed":
                self._kill_postgres()
            case "connections cut":
                with self.engine.begin() as connection:
                    world_store.cut_connections(connection)
            case "broker restarted":
                self.kafka.kill()
                self.kafka.start()
            case "broker frozen":
                with _standing_still(self.kafka):
                    time.sleep(fault.seconds)
            case "lock held":
                with self.engine.begin() as connection:
                    world_store.lock_sums(connection)
                    time.sleep(fault.seconds + program.SESSION_SECONDS)
            case "Postgres unreachable" | "Kafka unreachable":
                network = self.postgres_network if fault.kind.startswith("Postgres") else self.kafka_network
                network.cut()
                time.sleep(fault.seconds + program.SESSION_SECONDS)
                network.heal(reset=fault.worker == 0)
            case _:
                raise AssertionError(fault.kind)
        self.counts[fault.kind] += 1

    def close_through(self, month: Period) -> None:
        """Let the closers close months up to this one."""
        beside = self.folder / "gate.new"
        beside.write_text(str(month))
        beside.replace(self.folder / "gate")

    def log_tail(self) -> str:
        """What the workers said last, without what they say of every batch."""
        lines = [
            line
            for place in range(WORKERS)
            for line in self._log(place).read_text(errors="replace").splitlines()[-400:]
            if '"batch"' not in line
        ]
        return "\n".join(lines)[-_tail_characters:]

    def _at_point(self, fault: Fault) -> None:
        """Lay a fuse, and wait for a worker to meet it; where none does, a worker is killed wherever it is."""
        assert fault.point is not None
        freezes = fault.kind.startswith("freeze")
        if fault.point not in self._laid:
            if fault.point in CLOSING:
                self._open_a_month()
            # A close comes past all its points within moments: each of them waits for it.
            together = CLOSING if fault.point in CLOSING and not freezes else (fault.point,)
            for point in together:
                program.lay(self.folder, point, "freeze" if freezes else "kill")
                self._laid.add(point)
        process = self._met(fault.point)
        program.clear(self.folder, fault.point)
        self._laid.discard(fault.point)
        if process is None:
            self.counts[f"not met: {fault.point}"] += 1
            if not freezes:
                self._signal(fault.worker, signal.SIGKILL)
                self.counts["kill"] += 1
            return
        self.counts[f"{'frozen' if freezes else 'killed'} {fault.point}"] += 1
        if freezes:
            self._thaw(process)

    def _met(self, point: str) -> int | None:
        deadline = time.monotonic() + _point_seconds_max
        while (process := program.taken(self.folder, point)) is None and time.monotonic() < deadline:
            self.tick()
            time.sleep(_look_seconds)
        return process

    def peace(self) -> None:
        """Take all fuses away that nobody has met."""
        for point in self._laid:
            program.clear(self.folder, point)
        self._laid.clear()

    def _open_a_month(self) -> None:
        """The next month may close now, unless one still can."""
        with self.engine.connect() as connection:
            closed = world_store.closed_months(connection)
        if closed >= self._closing and self._closing < len(self._months) - 1:
            self._closing += 1
            self.close_through(self._months[self._closing - 1])

    def _kill_postgres(self) -> None:
        process = self.postgres.process
        assert process is not None
        process.kill()
        process.wait()
        for _ in range(_start_attempts_max):
            try:
                self.postgres.start()
            except PostgresUnavailableError:  # its children hold its memory for a moment yet
                time.sleep(0.1)
            else:
                return
        raise PostgresUnavailableError("Postgres did not come back")

    def _thaw(self, process: int) -> None:
        """Let a worker that stands still go on, after others have taken its partitions and its jobs over."""
        time.sleep(program.SESSION_SECONDS * 2)
        with _ignoring_the_dead():
            os.kill(process, signal.SIGCONT)

    def _signal(self, place: int, number: int) -> None:
        with _ignoring_the_dead():
            os.kill(self._pid(place), number)
        if number == signal.SIGKILL:
            worker = self._workers[place]
            assert worker is not None
            worker.join(5)

    def _pid(self, place: int) -> int:
        worker = self._workers[place]
        assert worker is not None
        assert worker.pid is not None
        return worker.pid

    def _start(self, place: int) -> BaseProcess:
        arguments = (self.folder, self._log(place), self._environment())
        worker = self._context.Process(target=program.run, args=arguments, daemon=True)
        worker.start()
        return worker

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}  # noqa: TID251 (passed on)
        inputs = [{"topic": topic, "kind": topic.split(".", maxsplit=1)[0]} for topic in PARTITIONS]
        ours = {
            "inputs": json.dumps(inputs),
            "session_timeout_seconds": str(program.SESSION_SECONDS),
            "batch_records_max": "200",
            "sip_wait_seconds": "20",
            "grace_hours": "0",
            "quarantine_wait_hours_max": "0",
            "closer_interval_seconds": "0.5",
            "relay_interval_seconds": "0.3",
            "resolver_interval_seconds": "0.5",
        }
        return {
            **kept,
            **{f"TENANT_BILLING_{name.upper()}": value for name, value in ours.items()},
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{self.postgres_network.port}/postgres",
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
        }

    def _log(self, place: int) -> Path:
        return self.folder / f"worker-{place}.log"

    def _stop_workers(self) -> None:
        for worker in self._workers:
            if worker is not None and worker.exitcode is None:
                worker.terminate()
        for worker in self._workers:
            if worker is not None:
                worker.join(10)
                if worker.exitcode is None:
                    worker.kill()
                    worker.join()


@contextmanager
def _standing_still(kafka: RealKafka) -> Iterator[None]:
    child = kafka._child  # noqa: SLF001 (a broker that stands still is asked for by nobody else)
    assert child is not None
    child.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        child.process.send_signal(signal.SIGCONT)


@contextmanager
def _ignoring_the_dead() -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        return

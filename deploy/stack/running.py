"""The whole stack as child processes: broker, Postgres, Stripe sandbox, worker, invoicer.

Each part may be replaced by a real one that is there already. Whatever was started here is stopped here, also after
an error, and the kernel ends it if we are killed.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.stack.broker import BrokerUnavailableError
from deploy.stack.child import Child
from deploy.stack.mock_broker import EmbeddedBroker
from deploy.stack.postgres import EmbeddedPostgres, free_port
from pipeline.settings import Settings

SERVICES: Final = ("worker", "invoicer")
INPUT_PARTITIONS: Final = {"calls.raw": 6, "sip.raw": 4}
OUTPUT_PARTITIONS: Final = {"statements.closed": 2, "periods.closed": 1}

_OURS: Final = re.compile(r"(TENANT_BILLING_|STRIPE_|FAUST_).*|DATABASE_URL|KAFKA_BOOTSTRAP_SERVERS")
_stop_seconds_max: Final = 20.0
_start_seconds_max: Final = 30.0
_log_tail_lines: Final = 15


class ServiceEndedError(RuntimeError):
    """A child process ended or did not start; the message names its log and quotes its end."""


@dataclass(frozen=True, slots=True)
class RealParts:
    """Addresses of what is there already; None: an embedded part is started."""

    kafka_bootstrap_servers: str | None = None
    database_url: str | None = None
    stripe_api_key: str | None = None
    stripe_api_base: str | None = None


@dataclass
class RunningStack:
    """The started stack; a context manager. Start it from the thread that will stop it.

    Args:
        logs: the folder for the children's logs, one file each, begun anew.
        settings: product settings beside addresses, by environment name.
        real: parts that are there already.
    """

    logs: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    real: RealParts = field(default_factory=RealParts)
    metrics_ports: dict[str, int] = field(default_factory=dict)
    _broker: EmbeddedBroker | None = None
    _postgres: EmbeddedPostgres | None = None
    _children: dict[str, Child] = field(default_factory=dict)
    _sandbox_url: str | None = None

    def start_parts(self) -> Self:
        """Start what the services need: broker with its topics, Postgres, sandbox.

        Raises:
            BrokerUnavailableError, PostgresUnavailableError, ServiceEndedError: a part did not start.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        if self.real.kafka_bootstrap_servers is None:
            self._broker = EmbeddedBroker({**INPUT_PARTITIONS, **OUTPUT_PARTITIONS}).start()
        else:
            _make_missing_topics(self.real.kafka_bootstrap_servers)
        if self.real.database_url is None:
            self._postgres = EmbeddedPostgres(options=("fsync=off", "full_page_writes=off"))
            self._postgres.start()
        if self.real.stripe_api_key is None:
            self._start_sandbox()
        return self

    def start_service(self, name: str) -> None:
        """Start `worker` or `invoicer` as a process of its own."""
        self.metrics_ports[name] = free_port()
        ports = {"TENANT_BILLING_METRICS_PORT": str(self.metrics_ports[name])}
        self._start(name, ["-m", "pipeline.cli", name], {**_inherited(), **self.environment, **ports})

    def stop_service(self, name: str) -> None:
        """Stop one service; what it has not committed it does again when it is started."""
        child = self._children.pop(name, None)
        if child is not None:
            child.stop(_stop_seconds_max)

    def stop(self) -> None:
        """Stop everything that was started, services first; safe to repeat."""
        for name in reversed(list(self._children)):
            self.stop_service(name)
        if self._broker is not None:
            self._broker.stop()
        if self._postgres is not None:
            self._postgres.stop()
        self._broker = self._postgres = None

    def check(self) -> None:
        """Whether every child still runs.

        Raises:
            ServiceEndedError: one ended by itself.
        """
        for name, child in self._children.items():
            if not child.running:
                raise ServiceEndedError(f"the {name} ended by itself; {self.log_tail(name)}")

    def log_tail(self, name: str) -> str:
        """Where a child's log is, and its last lines."""
        path = self.logs / f"{name}.log"
        lines = path.read_text(errors="replace").splitlines()[-_log_tail_lines:] if path.exists() else []
        return "\n".join([f"its log is {path}, which ends:", *lines])

    @property
    def names(self) -> tuple[str, ...]:
        """The children that run, by name."""
        return tuple(self._children)

    @property
    def environment(self) -> dict[str, str]:
        """The product's settings for this stack, as environment variables."""
        embedded = {
            "TENANT_BILLING_REQUIRE_LOG_APPEND_TIME": "false",
        }
        return {
            "DATABASE_URL": self.database_url,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka_bootstrap_servers,
            **({"STRIPE_API_KEY": self.real.stripe_api_key} if self.real.stripe_api_key else {}),
            **({"STRIPE_API_BASE": self.stripe_api_base} if self.stripe_api_base else {}),
            **(embedded if self._broker is not None else {}),
            **self.settings,
        }

    def read_settings(self) -> Settings:
        """The settings as a service of this stack reads them."""
        prefix = "TENANT_BILLING_"
        names = {name.removeprefix(prefix).lower(): value for name, value in self.environment.items()}
        return Settings(**names)  # type: ignore[arg-type] # texts, which pydantic parses

    @property
    def kafka_bootstrap_servers(self) -> str:
        """Where Kafka is."""
        return self.real.kafka_bootstrap_servers or (self._broker.bootstrap_servers if self._broker else "")

    @property
    def database_url(self) -> str:
        """Where Postgres is."""
        return self.real.database_url or (self._postgres.url() if self._postgres else "")

    @property
    def stripe_api_base(self) -> str | None:
        """Where Stripe's sandbox is; None: at Stripe itself."""
        return self._sandbox_url or self.real.stripe_api_base

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_sandbox(self) -> None:
        self._start("sandbox", ["-m", "invoicing.sandbox", "--port", "0"], _inherited())
        deadline = time.monotonic() + _start_seconds_max
        while not (said := (self.logs / "sandbox.log").read_text()).endswith("\n"):
            self.check()
            if time.monotonic() > deadline:
                raise ServiceEndedError(f"the sandbox did not start in time; {self.log_tail('sandbox')}")
            time.sleep(0.02)
        self._sandbox_url = said.splitlines()[0].strip()

    def _start(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> None:
        with (self.logs / f"{name}.log").open("wb") as log:
            command = [sys.executable, *arguments]
            root = Path(__file__).parents[2]
            self._children[name] = Child(command, stdout=log, working_directory=root, environment=environment)


def _make_missing_topics(bootstrap_servers: str) -> None:
    """Make the topics that a real cluster lacks; its default replication holds. Existing ones are left alone."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    try:
        existing = admin.list_topics(timeout=_start_seconds_max).topics
        wanted = [
            NewTopic(topic, partitions, config={"message.timestamp.type": kind})
            for kind, topics in (("LogAppendTime", INPUT_PARTITIONS), ("CreateTime", OUTPUT_PARTITIONS))
            for topic, partitions in topics.items()
            if topic not in existing
        ]
        for made in admin.create_topics(wanted).values() if wanted else ():
            made.result(_start_seconds_max)
    except KafkaException as error:
        raise BrokerUnavailableError(f"{bootstrap_servers}: {error.args[0].str()}") from error


def _inherited() -> dict[str, str]:
    """Our environment without settings of other installations."""
    return {name: value for name, value in os.environ.items() if not _OURS.fullmatch(name)}  # noqa: TID251 (passed on)

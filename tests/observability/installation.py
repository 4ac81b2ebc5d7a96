"""A database, topics and services of a test's own, asked as an operator's probes ask them."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Producer
from sqlalchemy import Engine

from deploy.stack.broker import Broker
from deploy.stack.child import Child
from deploy.stack.postgres import free_port
from tests.services import service
from tests.world import World

STUCK_SECONDS = "2"


class Installation:
    """A database, topics and services, each with its port."""

    def __init__(self, engine: Engine, url: str, kafka: Broker, topics: dict[str, str], folder: Path) -> None:
        inputs = [{"topic": topics["calls"], "kind": "calls"}]
        self.world, self.topics, self.kafka, self.folder = (
            World(engine, inputs=inputs),
            topics,
            kafka,
            folder,
        )
        self.port = free_port()
        self.environment = {
            **os.environ,  # noqa: TID251 (passed on to the service)
            "DATABASE_URL": url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "TENANT_BILLING_INPUTS": json.dumps(inputs),
            "TENANT_BILLING_STATEMENTS_TOPIC": topics["statements"],
            "TENANT_BILLING_CONSUMER_GROUP": f"group-{topics['calls']}",
            "TENANT_BILLING_GRACE_HOURS": "1000000",
            "TENANT_BILLING_REQUIRE_LOG_APPEND_TIME": "true" if kafka.real else "false",
            "TENANT_BILLING_METRICS_PORT": str(self.port),
            "TENANT_BILLING_OBSERVE_INTERVAL_SECONDS": "0.3",
            "TENANT_BILLING_STUCK_SECONDS_MAX": STUCK_SECONDS,
        }

    @contextmanager
    def running(self, name: str, **settings: str) -> Iterator[Child]:
        with service(name, {**self.environment, **settings}, self.folder / f"{name}.log") as child:
            yield child

    def produce(self, *records: dict[str, object]) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers})
        for record in records:
            producer.produce(self.topics["calls"], json.dumps(record).encode())
        assert producer.flush(30) == 0

    def ask(self, path: str) -> tuple[int, str]:
        return asked(self.port, path)

    def says(self, path: str, status: int, **parts: str) -> bool:
        found, body = self.ask(path)
        return found == status and all(json.loads(body)[name] == said for name, said in parts.items())


def asked(port: int, path: str) -> tuple[int, str]:
    """Status and body; 0 where nobody listens yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()
    except OSError:
        return 0, "{}"


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)

"""docker-compose.yml, as far as it can be tried without an engine: its schema, its doors, and each command line run."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import psutil
import pytest
import yaml
from sqlalchemy import text

from deploy.stack.broker import Broker
from deploy.stack.child import Child
from deploy.stack.postgres import EmbeddedPostgres, free_port
from pipeline.database import connect
from tests.conftest import MakeTopics

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
PASSWORD_FILE = ROOT / "deploy" / "compose" / "loopback-only-password"
RUN_TO_THE_END = ("migrate", "topics", "bootstrap")
PATIENCE_SECONDS = 90.0


def test_the_file_is_what_compose_reads() -> None:
    package = importlib.util.find_spec("check_jsonschema")  # its command does not start beside every click
    assert package is not None
    assert package.origin is not None
    schema = Path(package.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.Draft202012Validator(json.loads(schema.read_text())).validate(COMPOSE)


def test_every_part_is_there_and_says_when_it_is_ready() -> None:
    stay = {"kafka", "postgres", "worker", "invoicer", "stripe", "prometheus", "grafana"}
    assert set(SERVICES) == stay | set(RUN_TO_THE_END) | {"operator"}
    for name in stay:
        assert SERVICES[name]["healthcheck"]["test"], name
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in RUN_TO_THE_END else "service_healthy"
            if name != "stripe":
                assert how["condition"] == wanted, (name, other)


def test_only_loopback_of_this_machine_is_listened_on() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), (name, port)
    assert SERVICES["stripe"]["network_mode"] == "service:invoicer"


def test_secrets_are_files_and_stand_in_no_environment_or_command() -> None:
    password = PASSWORD_FILE.read_text().strip()
    assert password == "loopback-only"
    for name, service in SERVICES.items():
        said = json.dumps([service.get("environment"), service.get("command"), service.get("entrypoint")])
        assert password not in said
        for variable in service.get("environment", {}):
            if re.search("PASSWORD|SECRET|API_KEY|TOKEN", variable):
                assert variable.endswith("_FILE"), (name, variable)
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())


def test_images_are_pinned_and_named_without_a_registry_and_ours_can_do_little() -> None:
    for name, service in SERVICES.items():
        assert re.fullmatch(r"([a-z]+/)?[a-z-]+:v?\d+(\.\d+)+", service["image"]), name
    for service in OURS.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_workers_can_be_many() -> None:
    assert not {"container_name", "ports", "network_mode"} & set(SERVICES["worker"])


def test_what_is_kept_is_kept_in_named_volumes() -> None:
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert set(COMPOSE["volumes"]) == {volume for volume in mounted if not volume.startswith("./")}
    for folder in mounted - set(COMPOSE["volumes"]):
        assert (ROOT / folder).exists(), folder


class Native:
    """The services of the compose file as processes here: their commands, environments and health checks as written."""

    def __init__(
        self,
        postgres: EmbeddedPostgres,
        database: str,
        kafka: Broker,
        topics: Mapping[str, str],
        folder: Path,
    ) -> None:
        self._rewritten = {
            "@postgres:5432/tenant_billing": f"@127.0.0.1:{postgres.port}/{database}",
            "kafka:9092": kafka.bootstrap_servers,
            "/run/secrets/postgres_password": str(PASSWORD_FILE),
            "0.0.0.0": "127.0.0.1",
        }
        self._sandbox_port = str(free_port())
        inputs = [{"topic": topics[kind], "kind": kind} for kind in ("calls", "sip")]
        self._own = {  # only so that tests beside this one have topics of their own
            "TENANT_BILLING_INPUTS": json.dumps(inputs),
            "TENANT_BILLING_STATEMENTS_TOPIC": topics["statements"],
            "TENANT_BILLING_PERIODS_TOPIC": topics["periods"],
            "TENANT_BILLING_CONSUMER_GROUP": topics["calls"],
            "TENANT_BILLING_REQUIRE_LOG_APPEND_TIME": "true" if kafka.real else "false",
        }
        self.folder = folder
        self.metrics_ports: dict[str, str] = {}

    def run(self, name: str) -> None:
        """Run a service that ends."""
        done = subprocess.run(
            self.command(name),
            check=False,
            env=self.environment(name),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, (name, done.stdout, done.stderr)

    def start(self, name: str, instance: str) -> Child:
        """Start a service that stays."""
        self.metrics_ports[instance] = str(free_port())
        with (self.folder.parent / f"{instance}.log").open("wb") as log:
            return Child(
                self.command(name, instance),
                stdout=log,
                working_directory=self.folder,
                environment=self.environment(name, instance),
            )

    def healthy(self, name: str, instance: str) -> bool:
        check = SERVICES[name]["healthcheck"]["test"]
        assert check[0] == "CMD"
        command = [self._rewrite(part, instance) for part in check[1:]]
        environment = self.environment(name, instance)
        return (
            subprocess.run(command, check=False, env=environment, capture_output=True, timeout=60).returncode
            == 0
        )

    def command(self, name: str, instance: str = "") -> list[str]:
        service = SERVICES[name]
        command = service["command"]
        arguments = shlex.split(command) if isinstance(command, str) else command
        parts = [*service.get("entrypoint", ["tenant-billing"]), *arguments]
        return [self._rewrite(part, instance) for part in parts]

    def environment(self, name: str, instance: str = "") -> dict[str, str]:
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # noqa: TID251 (passed on)
        said = {
            key: self._rewrite(value, instance)
            for key, value in SERVICES[name].get("environment", {}).items()
        }
        return {"PATH": programs, "PYTHONPATH": str(ROOT), **self._own, **said}

    def _rewrite(self, value: str, instance: str) -> str:
        for here, there in self._rewritten.items():
            value = value.replace(here, there)
        value = value.replace("12111", self._sandbox_port)
        return value.replace("9464", self.metrics_ports.get(instance, "9464"))


@pytest.fixture
def native(postgres: EmbeddedPostgres, kafka: Broker, topics: MakeTopics, tmp_path: Path) -> Iterator[Native]:
    named = topics(calls=2, sip=2, statements=1, periods=1)
    name = f"compose_{free_port()}"
    admin = connect(postgres.url(), application_name="test").execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"create database {name}"))
    owner = connect(postgres.url(name), application_name="test")
    logins = (ROOT / "deploy" / "logins.sql").read_text()
    with owner.begin() as connection:
        for _ in range(2):  # safe to repeat
            connection.exec_driver_sql(
                logins.replace("pg_read_file('/run/secrets/postgres_password')", "'loopback-only'").replace(
                    "%", "%%"
                )
            )
    owner.dispose()
    folder = tmp_path / "empty"
    folder.mkdir()
    yield Native(postgres, name, kafka, named, folder)
    with admin.connect() as connection:
        connection.execute(text(f"drop database {name} with (force)"))
    admin.dispose()


@pytest.mark.slow
def test_each_service_runs_as_written_and_becomes_healthy_by_its_own_check(
    native: Native, kafka: Broker
) -> None:
    native.run("migrate")
    if kafka.real:
        native.run("topics")
    native.run("bootstrap")
    native.run("bootstrap")  # as a second `up` does
    started = {"worker": "worker", "worker-2": "worker", "invoicer": "invoicer", "stripe": "stripe"}
    with ExitStack() as running:
        children = {instance: native.start(name, instance) for instance, name in started.items()}
        for child in children.values():
            running.callback(child.stop, 30)
        deadline = time.monotonic() + PATIENCE_SECONDS
        for instance, name in started.items():
            while not native.healthy(name, instance):
                log = (native.folder.parent / f"{instance}.log").read_text()
                assert children[instance].running, log
                assert time.monotonic() < deadline, log
                time.sleep(0.2)
        for child in children.values():
            process = psutil.Process(child.process.pid)
            assert "loopback-only" not in " ".join(process.cmdline()).replace(str(PASSWORD_FILE), "")
            doors = [each.laddr.ip for each in process.net_connections() if each.status == psutil.CONN_LISTEN]
            assert set(doors) == {"127.0.0.1"}
        for instance, child in children.items():
            assert child.stop(30), f"{instance} did not end by itself"
    assert not list(native.folder.iterdir()), "a service wrote where a container could not"

"""Kafka behind TLS, with users and passwords, on a real broker: every client of ours comes in, and nobody else."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from sqlalchemy import Engine, text

from deploy.stack.kafka import RealKafka, free_port, real_kafka_available
from pipeline.boundaries import BoundariesUnavailableError, KafkaBoundaries
from pipeline.kafka_security import librdkafka_options
from pipeline.settings import Settings
from pipeline.topics import Topics, TopicsUnavailableError, wanted_topics
from tests.conftest import _kafka_required as kafka_required
from tests.security.certificates import Authority
from tests.services import service
from tests.world import World, inbound, utc

NUMBER = "+12125550101"
PASSWORD = "fictional-password-1"
PATIENCE_SECONDS = 60.0

pytestmark = pytest.mark.kafka


@dataclass(frozen=True)
class SecuredKafka:
    """A broker with a listener for users (SASL_SSL, SCRAM) and one for certificates (SSL), and what a client needs."""

    users: str
    certificates: str
    authority: Path
    settings: dict[str, str]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    obstacle = real_kafka_available()
    if obstacle is not None:
        (pytest.fail if kafka_required() else pytest.skip)(obstacle)
    folder = tmp_path_factory.mktemp("kafka")
    authority = Authority(folder / "certificates")
    broker, client = authority.certify("broker"), authority.certify("client")
    keystore = folder / "keystore.pem"
    keystore.write_text(broker.key.read_text() + broker.certificate.read_text())
    plain, users, certificates, controller = (free_port() for _ in range(4))
    listeners = (
        f"PLAINTEXT://127.0.0.1:{plain},USERS://127.0.0.1:{users},CERTIFICATES://127.0.0.1:{certificates}"
    )
    settings = {
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": listeners,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,USERS:SASL_SSL,CERTIFICATES:SSL",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.users.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.certificate),
        "listener.name.certificates.ssl.client.auth": "required",
    }
    password_file = folder / "password"
    password_file.write_text(PASSWORD + "\n")
    with RealKafka(port=plain, settings=settings) as node:
        make_user(node.bootstrap_servers, "billing")
        yield SecuredKafka(
            users=f"127.0.0.1:{users}",
            certificates=f"127.0.0.1:{certificates}",
            authority=authority.certificate,
            settings={
                "TENANT_BILLING_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "TENANT_BILLING_KAFKA_USERNAME": "billing",
                "TENANT_BILLING_KAFKA_PASSWORD_FILE": str(password_file),
                "TENANT_BILLING_KAFKA_CA_FILE": str(authority.certificate),
                "TENANT_BILLING_KAFKA_CERTIFICATE_FILE": str(client.certificate),
                "TENANT_BILLING_KAFKA_KEY_FILE": str(client.key),
            },
        )


def make_user(bootstrap_servers: str, name: str) -> None:
    credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    user = UserScramCredentialUpsertion(name, credentials, PASSWORD.encode())
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for answer in admin.alter_user_scram_credentials([user]).values():
        answer.result(20)


@pytest.fixture
def environment(kafka: SecuredKafka, database_url: str) -> dict[str, str]:
    """What every service is given; the addresses are of the users' listener."""
    return {
        **os.environ,  # noqa: TID251 (passed on to the services)
        **kafka.settings,
        "DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.users,
        "STRIPE_API_BASE": "http://127.0.0.1:1",
        "TENANT_BILLING_GRACE_HOURS": "1000000",
    }


def settings_of(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings.read()


def test_a_record_is_posted_and_every_client_comes_in_with_its_user_and_password(
    kafka: SecuredKafka,
    environment: dict[str, str],
    database: Engine,
    tmp_path: Path,
    type_: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_of(environment, monkeypatch)
    url = environment["DATABASE_URL"]
    assert "made" in type_(url, "topics", "create", "--replication", "1")
    world = World(database)
    account = world.account()
    world.number(NUMBER, account, world.tenant(account, "shop.example.com"))
    world.run()
    records = tmp_path / "calls.jsonl"
    records.write_text(json.dumps(inbound("one", NUMBER, utc("2026-09-10 12:00"))))
    type_(url, "publish", "calls.raw", str(records))
    ports = {name: str(free_port()) for name in ("worker", "invoicer")}
    with ExitStack() as running:
        children = [
            running.enter_context(
                service(name, environment | {"TENANT_BILLING_METRICS_PORT": port}, tmp_path / f"{name}.log")
            )
            for name, port in ports.items()
        ]
        with database.begin() as connection:
            connection.execute(
                text(
                    "insert into outbox (topic, key, headers, value, made_at) "
                    "values ('statements.closed', 'k', '{}', 'told', now())"
                )
            )
        eventually(lambda: [row.record_id for row in world.ledger()] == ["one"])
        eventually(lambda: world.query("select published_at from outbox")[0].published_at is not None)
        for port in ports.values():
            eventually(lambda port=port: ready(port))  # type: ignore[misc]
        for child in children:
            told = Path(f"/proc/{child.process.pid}/cmdline").read_bytes()
            assert PASSWORD.encode() not in told
        assert read_one(settings, "statements.closed") == b"told"
    source = KafkaBoundaries(settings.kafka_bootstrap_servers, settings.kafka_security)
    ends = source.boundaries(["calls.raw"], datetime(2100, 1, 1, tzinfo=UTC))
    assert sum(ends.values()) == 1
    for name in ports:
        assert PASSWORD not in (tmp_path / f"{name}.log").read_text()


def test_a_certificate_alone_opens_the_listener_for_certificates(
    kafka: SecuredKafka, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("USERNAME", "PASSWORD_FILE"):
        environment.pop(f"TENANT_BILLING_KAFKA_{name}")
    own = {"TENANT_BILLING_KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_BOOTSTRAP_SERVERS": kafka.certificates}
    settings = settings_of(environment | own, monkeypatch)
    assert Topics(settings).check(wanted_topics(settings, {}, 1))


@pytest.mark.parametrize("wrong", ["password", "user", "authority", "nothing encrypted"])
def test_nobody_else_comes_in(
    kafka: SecuredKafka,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    wrong: str,
) -> None:
    (tmp_path / "wrong").write_text("another-password")
    other = {
        "password": {"TENANT_BILLING_KAFKA_PASSWORD_FILE": str(tmp_path / "wrong")},
        "user": {"TENANT_BILLING_KAFKA_USERNAME": "nobody"},
        "authority": {"TENANT_BILLING_KAFKA_CA_FILE": str(Authority(tmp_path / "other").certificate)},
        "nothing encrypted": {"TENANT_BILLING_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
    }[wrong]
    if wrong == "nothing encrypted":
        for name in ("CA_FILE", "CERTIFICATE_FILE", "KEY_FILE"):
            environment.pop(f"TENANT_BILLING_KAFKA_{name}")
    settings = settings_of(environment | other, monkeypatch)
    monkeypatch.setattr("pipeline.topics._answer_seconds_max", 4.0)
    with pytest.raises(TopicsUnavailableError):
        Topics(settings).check(wanted_topics(settings, {}, 1))
    source = KafkaBoundaries(settings.kafka_bootstrap_servers, settings.kafka_security, answer_seconds_max=3)
    with pytest.raises(BoundariesUnavailableError):
        source.boundaries(["calls.raw"], datetime(2026, 9, 1, tzinfo=UTC))


def test_a_broker_whose_certificate_names_another_address_is_not_talked_to(
    kafka: SecuredKafka, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = kafka.users.replace("127.0.0.1", "localhost")
    settings = settings_of(environment | {"KAFKA_BOOTSTRAP_SERVERS": named}, monkeypatch)
    monkeypatch.setattr("pipeline.topics._answer_seconds_max", 4.0)
    with pytest.raises(TopicsUnavailableError):
        Topics(settings).check(wanted_topics(settings, {}, 1))


def read_one(settings: Settings, topic: str) -> bytes | None:
    consumer = Consumer(
        {
            **librdkafka_options(settings.kafka_security),
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": "test",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    message = consumer.poll(PATIENCE_SECONDS)
    consumer.close()
    assert message is not None
    assert message.error() is None
    value: bytes | None = message.value()
    return value


def ready(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)

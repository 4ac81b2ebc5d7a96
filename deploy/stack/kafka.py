"""Apache Kafka as a child process: one node that is broker and controller (KRaft), on loopback.

It keeps its records over a crash and a restart, stamps records with LogAppendTime, and tells offsets for a time,
which the embedded broker does not. It needs Java 17; Maven fetches the jars on first use.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic, TopicMetadata

from deploy.stack.broker import BrokerUnavailableError
from deploy.stack.child import Child
from deploy.stack.kafka_install import KafkaInstallation, install_kafka, kafka_version, real_kafka_available

__all__ = ["RealKafka", "kafka_version", "real_kafka_available"]

_start_seconds_max: Final = 60.0
_stop_seconds_max: Final = 30.0
_request_seconds_max: Final = 30.0
_probe_seconds_max: Final = 2.0
_start_attempts_max: Final = 5
_log_tail_characters: Final = 3000
_message_bytes_max: Final = 8 * 1024 * 1024
_FOREVER: Final = "-1"
# Below the range from which systems take ports for outgoing connections: otherwise a client that retries while
# the broker is down can be given the broker's own port.
_PORTS: Final = range(20_000, 32_000)
_PORT_TAKEN: Final = "Address already in use"
_SETTINGS: Final = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",  # so that tests of dead workers need not wait long
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",  # after a crash the node waits so long for its former self
    "message.max.bytes": str(_message_bytes_max),
    "replica.fetch.max.bytes": str(_message_bytes_max),
    "log.retention.ms": _FOREVER,
    "log.cleaner.dedupe.buffer.size": str(2 * 1024 * 1024),
}


class RealKafka:
    """One Apache Kafka node.

    Args:
        data: its folder; a temporary one, removed at `stop`, when None.
        port: TCP port on 127.0.0.1; a free one, kept over restarts, when None.
        heap_megabytes_max: Java's heap; more for benchmarks.
        short_lived: start fast and never compile hot code fully; false for benchmarks and `make up`.
        settings: broker settings beside or instead of ours.
    """

    real: Final = True

    def __init__(
        self,
        data: Path | None = None,
        port: int | None = None,
        *,
        heap_megabytes_max: int = 256,
        short_lived: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.temporary = data is None
        self.root = (
            Path(tempfile.mkdtemp(prefix="tenant-billing-kafka-")) if data is None else data.absolute()
        )
        self.port = port
        self.settings = dict(settings or {})
        self._java_options = (
            *("-Xms64m", f"-Xmx{heap_megabytes_max}m", "-XX:+UseSerialGC"),
            *(("-XX:TieredStopAtLevel=1",) if short_lived else ()),
        )
        self._installation: KafkaInstallation | None = None
        self._child: Child | None = None

    def start(self) -> Self:
        """Format the folder where it is new, start the node and wait until it answers; also after `kill`.

        Raises:
            BrokerUnavailableError: no Java or Maven, or the node ended; the message quotes its log.
        """
        self._installation = install_kafka()
        self.root.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, _start_attempts_max + 1):
            port, logged_before = self.port or free_port(), self._logged_bytes()
            self._launch(self._installation, port)
            if self._became_ready(port):
                self.port = port
                return self
            self.kill()
            said = self._log.read_bytes()[logged_before:].decode(errors="replace")
            if _PORT_TAKEN not in said or attempt == _start_attempts_max:
                break
        raise BrokerUnavailableError(f"Kafka did not start; its log ends:\n{said[-_log_tail_characters:]}")

    def create_topics(
        self,
        partitions: Mapping[str, int],
        *,
        log_append_time: bool = True,
        retention: timedelta | None = None,
    ) -> None:
        """Make topics; see `Broker.create_topics`.

        Args:
            partitions: name → number of partitions.
            log_append_time: records get the broker's time, as the input topics need (C1); else the producer's.
            retention: how long records are kept at least; for good, when None.
        """
        configuration = {
            "message.timestamp.type": "LogAppendTime" if log_append_time else "CreateTime",
            "retention.ms": _FOREVER if retention is None else str(retention // timedelta(milliseconds=1)),
        }
        wanted = [NewTopic(name, count, 1, config=configuration) for name, count in partitions.items()]
        if wanted:
            admin = _admin(self.bootstrap_servers)
            for made in admin.create_topics(wanted, request_timeout=_request_seconds_max).values():
                _accept_existing(made)
            _wait_for_leaders(admin, partitions)

    def stop(self) -> None:
        """Orderly shutdown; a temporary folder is removed."""
        if self._child is not None:
            self._child.stop(_stop_seconds_max)
        if self._installation is not None:
            self._installation.keep_class_archive(self._new_class_archive)
        self._child = None
        if self.temporary:
            shutil.rmtree(self.root, ignore_errors=True)

    def kill(self) -> None:
        """End the node at once, as a crash would; `start` brings it back with its records, on the same port."""
        if self._child is not None:
            self._child.kill()
        self._child = None

    @property
    def bootstrap_servers(self) -> str:
        """`host:port`.

        Raises:
            BrokerUnavailableError: it was never started.
        """
        if self.port is None:
            raise BrokerUnavailableError("Kafka was not started")
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return self.root / "server.log"

    @property
    def _data(self) -> Path:
        return self.root / "data"

    @property
    def _configuration(self) -> Path:
        return self.root / "server.properties"

    def _logged_bytes(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    @property
    def _new_class_archive(self) -> Path:
        return self.root / "classes.jsa"

    def _launch(self, installation: KafkaInstallation, port: int) -> None:
        self._configuration.write_text(self._settings_file(port))
        if not (self._data / "meta.properties").exists():
            self._format(installation)
        options = (*self._java_options, installation.class_archive_option(self._new_class_archive))
        command = installation.command("kafka.Kafka", str(self._configuration), options=options)
        with self._log.open("ab") as log:
            self._child = Child(command, stdout=log, working_directory=self.root)

    def _settings_file(self, port: int) -> str:
        controller_port = free_port()
        addresses = {
            "log.dirs": str(self._data),
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        }
        lines = (f"{name}={value}\n" for name, value in (_SETTINGS | addresses | self.settings).items())
        return "".join(lines)

    def _format(self, installation: KafkaInstallation) -> None:
        """Make the node's folder, with a cluster id of its own (16 bytes in base64 that look like no option)."""
        cluster_id = secrets.token_urlsafe(16).replace("-", "A")
        command = installation.command(
            "kafka.tools.StorageTool",
            *("format", "--cluster-id", cluster_id, "--config", str(self._configuration)),
            options=self._java_options,
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own program)
        if done.returncode:
            raise BrokerUnavailableError(f"Kafka's folder could not be made:\n{done.stdout}{done.stderr}")

    def _became_ready(self, port: int) -> bool:
        """Whether our node answers on the port; false once it has ended or taken too long."""
        cluster_id = _cluster_id(self._data / "meta.properties")
        deadline = time.monotonic() + _start_seconds_max
        assert self._child is not None
        while self._child.running and time.monotonic() < deadline:
            if _listens(port) and _answering_cluster_id(port) == cluster_id:
                return True
            time.sleep(0.02)
        return False


def free_port() -> int:
    """A TCP port on 127.0.0.1 that was free a moment ago and that no outgoing connection will be given."""
    while True:
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _cluster_id(properties: Path) -> str:
    (line,) = (line for line in properties.read_text().splitlines() if line.startswith("cluster.id="))
    return line.partition("=")[2]


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _answering_cluster_id(port: int) -> str | None:
    """Which cluster answers: the port may be another's, taken while ours was starting."""
    try:
        metadata = _admin(f"127.0.0.1:{port}").list_topics(timeout=_probe_seconds_max)
    except KafkaException:
        return None
    answering: str | None = metadata.cluster_id
    return answering


def _admin(bootstrap_servers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})


def _accept_existing(made: Future[None]) -> None:
    try:
        made.result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise BrokerUnavailableError(f"Kafka refused a topic: {error.args[0].str()}") from None


def _wait_for_leaders(admin: AdminClient, partitions: Mapping[str, int]) -> None:
    """Wait until every partition takes records.

    Raises:
        BrokerUnavailableError: a topic has another number of partitions than wanted, or no leader in time.
    """
    deadline = time.monotonic() + _request_seconds_max
    while time.monotonic() < deadline:
        topics = admin.list_topics(timeout=_request_seconds_max).topics
        led = {name: _led_partitions(topics[name]) for name in partitions if name in topics}
        if led == dict(partitions):
            return
        for name in led:
            if len(topics[name].partitions) not in {0, partitions[name]}:
                existing = len(topics[name].partitions)
                raise BrokerUnavailableError(
                    f"topic {name} has {existing} partitions, not {partitions[name]}"
                )
        time.sleep(0.02)
    raise BrokerUnavailableError(f"no leader for {sorted(partitions)} after {_request_seconds_max:.0f} s")


def _led_partitions(topic: TopicMetadata) -> int:
    return sum(partition.leader >= 0 for partition in topic.partitions.values())

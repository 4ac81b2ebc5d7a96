"""librdkafka's own mock cluster as a child process: a Kafka broker that needs nothing but the confluent-kafka wheel.

For the demo and for tests where no Java is at hand. It does groups, commits, idempotent and transactional producers.
It does not do CreateTopics, DescribeConfigs, LogAppendTime or offsets for a time, forgets everything at its end, and
keeps 5 MiB a partition, dropping the oldest records silently: small data, many partitions, zstd.
Topics nobody made have 4 partitions. When members of a group come and go, the others wait for its session timeout
less one second; only a group's first start is fast.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from deploy.stack.broker import BrokerUnavailableError
from deploy.stack.child import Child

_stop_seconds_max: Final = 5.0
_rebalance_delay_milliseconds: Final = 100  # librdkafka's default of 3 s makes every start slow
_PRODUCER: Final = 0
_LIBRARY_PLACES: Final = ("../confluent_kafka.libs/librdkafka*", ".dylibs/librdkafka*")


class EmbeddedBroker:
    """One mock broker.

    Args:
        topics: name → number of partitions, made at the start; `create_topics` makes more.
    """

    real: Final = False

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        self.topics = dict(topics or {})
        self._child: Child | None = None
        self._bootstrap_servers = ""

    def start(self) -> Self:
        """Start the child and wait for its address.

        Raises:
            BrokerUnavailableError: no librdkafka with a mock cluster was found, or a topic was refused.
        """
        self._child = Child(
            [sys.executable, "-m", "deploy.stack.mock_broker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None,
            working_directory=Path(__file__).parents[2],
        )
        try:
            self._bootstrap_servers = self._answer()
            self.create_topics(self.topics)
        except BrokerUnavailableError:
            self.stop()
            raise
        return self

    def create_topics(self, partitions: Mapping[str, int]) -> None:
        """Make topics; see `Broker.create_topics`."""
        for topic, count in partitions.items():
            self._ask(f"{topic} {count}")

    def stop(self) -> None:
        """End the child and everything it kept."""
        if self._child is not None:
            self._child.stop(_stop_seconds_max)
            self._child = None

    @property
    def bootstrap_servers(self) -> str:
        """`host:port`; empty before the start."""
        return self._bootstrap_servers

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ask(self, question: str) -> None:
        if self._child is None or self._child.process.stdin is None:
            raise BrokerUnavailableError("the embedded broker is not running")
        try:
            self._child.process.stdin.write(f"{question}\n".encode())
            self._child.process.stdin.flush()
        except BrokenPipeError:
            raise BrokerUnavailableError("the embedded broker has ended") from None
        self._answer()

    def _answer(self) -> str:
        """The child's next line: `ok …` or `error …`; it says one after each question and one at its start."""
        assert self._child is not None
        assert self._child.process.stdout is not None
        line = self._child.process.stdout.readline().decode()
        verdict, _, rest = line.strip().partition(" ")
        if verdict != "ok":
            raise BrokerUnavailableError(f"embedded broker: {rest or 'it ended; its errors are above'}")
        return rest


def main() -> None:
    """The child: print the address, then make a topic for each line `name partitions`, until the pipe closes."""
    try:
        cluster = _MockCluster(_find_library())
    except BrokerUnavailableError as error:
        _say(f"error {error}")
        return
    _say(f"ok {cluster.bootstrap_servers}")
    for line in sys.stdin:
        topic, _, partitions = line.rpartition(" ")
        refusal = cluster.create_topic(topic, int(partitions))
        _say(f"error topic {topic}: {refusal}" if refusal else "ok")


class _MockCluster:
    """The few functions of `rdkafka_mock.h` that we use; the cluster lives as long as its process."""

    def __init__(self, library: str) -> None:
        self._functions = _declared(ctypes.CDLL(library))
        error = ctypes.create_string_buffer(512)
        configuration = self._functions.rd_kafka_conf_new()
        self._functions.rd_kafka_conf_set(configuration, b"log_level", b"0", error, len(error))
        owner = self._functions.rd_kafka_new(_PRODUCER, configuration, error, len(error))
        if not owner:
            raise BrokerUnavailableError(error.value.decode())
        self._cluster = self._functions.rd_kafka_mock_cluster_new(owner, 1)
        if not self._cluster:
            raise BrokerUnavailableError("librdkafka made no mock cluster")
        self._functions.rd_kafka_mock_group_initial_rebalance_delay_ms(
            self._cluster, _rebalance_delay_milliseconds
        )
        self._partitions: dict[str, int] = {}

    @property
    def bootstrap_servers(self) -> str:
        address: bytes = self._functions.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return address.decode()

    def create_topic(self, topic: str, partitions: int) -> str:
        """Why the topic could not be made; empty if it exists now."""
        if partitions < 1:  # librdkafka would take it
            return "a topic has at least one partition"
        if topic in self._partitions:
            existing = self._partitions[topic]
            return "" if existing == partitions else f"it has {existing} partitions, not {partitions}"
        code = self._functions.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1)
        if code:
            refusal: bytes = self._functions.rd_kafka_err2str(code)
            return refusal.decode()
        self._partitions[topic] = partitions
        return ""


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of the functions we call: pointers would be cut to 32 bits without."""
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[type | None, list[type]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (number, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_err2str": (text, [number]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name, None)
        if function is None:
            raise BrokerUnavailableError(
                f"this librdkafka has no {name}: install confluent-kafka from its wheel"
            )
        function.restype, function.argtypes = result, arguments
    return library


def _find_library() -> str:
    """The librdkafka inside the wheel (Linux and macOS layouts), else the system's.

    Raises:
        BrokerUnavailableError: confluent-kafka is not installed, or no library lies where its wheels have it.
    """
    package = importlib.util.find_spec("confluent_kafka")
    if package is None or package.origin is None:
        raise BrokerUnavailableError("confluent-kafka is not installed")
    folder = Path(package.origin).parent
    bundled = [str(found) for place in _LIBRARY_PLACES for found in sorted(folder.glob(place))]
    library = bundled[0] if bundled else ctypes.util.find_library("rdkafka")
    if library is None:
        raise BrokerUnavailableError(f"no librdkafka beside {folder}: install confluent-kafka from its wheel")
    return library


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

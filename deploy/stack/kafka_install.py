"""What Apache Kafka needs to run here: Java, and its jars, which Maven fetches once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from deploy.stack.broker import BrokerUnavailableError

_java_version_min: Final = 17
_fetch_seconds_max: Final = 900.0
_POM: Final = Path(__file__).with_name("pom.xml")
_HOME: Final = Path(__file__).parents[2] / ".run" / "kafka"
_LOGGING: Final = Path(__file__).with_name("log4j2.properties")


@dataclass(frozen=True, slots=True)
class KafkaInstallation:
    """Apache Kafka, ready to start.

    `class_archive` holds loaded classes for this Java: it halves the time to start, and may not exist yet.
    """

    java: Path
    classpath: str
    class_archive: Path

    def command(self, main_class: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        """How to run one of Kafka's programs; `options` go to Java."""
        logging = f"-Dlog4j2.configurationFile={_LOGGING.as_uri()}"
        return [str(self.java), *options, logging, "-cp", self.classpath, main_class, *arguments]

    def class_archive_option(self, new_archive: Path) -> str:
        """For the broker: read the class archive, or, while there is none, write one at an orderly end."""
        if self.class_archive.exists():
            return f"-XX:SharedArchiveFile={self.class_archive}"
        return f"-XX:ArchiveClassesAtExit={new_archive}"

    def keep_class_archive(self, new_archive: Path) -> None:
        """Let later starts use what a broker that has ended wrote, if it wrote one."""
        if new_archive.exists():
            beside = self.class_archive.with_name(f"{self.class_archive.name}.{os.getpid()}")
            shutil.move(new_archive, beside)
            beside.replace(self.class_archive)


def real_kafka_available() -> str | None:
    """None where Apache Kafka can run (Java 17 or newer, and Maven or jars fetched before); else why not."""
    if _java() is None:
        return f"no Java {_java_version_min} or newer in JAVA_HOME or on PATH"
    if not _fetched() and shutil.which("mvn") is None:
        return "no Maven (mvn) on PATH to fetch Apache Kafka with"
    return None


def install_kafka() -> KafkaInstallation:
    """Fetch the jars named in pom.xml into `.run/kafka/libs`, unless that is done.

    Safe to call from several processes at once: one fetches, the others wait.

    Raises:
        BrokerUnavailableError: Java or Maven is missing, or Maven failed; the message quotes its errors.
    """
    obstacle = real_kafka_available()
    java = _java()
    if obstacle is not None or java is None:
        raise BrokerUnavailableError(f"Apache Kafka cannot run here: {obstacle}")
    _HOME.mkdir(parents=True, exist_ok=True)
    with _locked(_HOME / "lock"):
        if not _fetched():
            _fetch()
    jars = sorted(str(jar) for jar in (_HOME / "libs").glob("*.jar"))
    return KafkaInstallation(java.path, ":".join(jars), _HOME / f"classes-{java.build}.jsa")


def kafka_version() -> str:
    """The version pom.xml names."""
    found = re.search(r"<kafka\.version>(.+?)</", _POM.read_text())
    assert found is not None
    return found[1]


@dataclass(frozen=True, slots=True)
class _Java:
    path: Path
    build: str


@cache
def _java() -> _Java | None:
    home = os.environ.get("JAVA_HOME")  # noqa: TID251 (where Java lies is no setting of the product)
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    for candidate in (*candidates, shutil.which("java")):
        if candidate is None or not Path(candidate).exists():
            continue
        answer = subprocess.run([candidate, "-version"], capture_output=True, text=True, check=False)  # noqa: S603
        version = re.search(r'version "(\d+)[^"]*"', answer.stderr)
        if version is not None and int(version[1]) >= _java_version_min:
            build = hashlib.sha256(answer.stderr.encode()).hexdigest()[:12]
            return _Java(Path(candidate), f"{version[1]}-{build}")
    return None


def _fetched() -> bool:
    stamp = _HOME / "libs" / "fetched"
    return stamp.exists() and stamp.read_text() == _pom_digest()


def _fetch() -> None:
    """Class archives belong to one set of jars, so they go with the old one."""
    libraries = _HOME / "libs"
    sys.stderr.write(f"Fetching Apache Kafka {kafka_version()} with Maven, once; this takes a minute …\n")
    shutil.rmtree(libraries, ignore_errors=True)
    for archive in _HOME.glob("classes-*.jsa"):
        archive.unlink()
    maven = ("mvn", "-B", "-ntp", "-C", "-f", str(_POM))  # batch, quiet, checksums checked
    done = subprocess.run(  # noqa: S603 (Maven as found on PATH)
        [*maven, "dependency:copy-dependencies", f"-DoutputDirectory={libraries}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_fetch_seconds_max,
        check=False,
    )
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "ERROR" in line] or [done.stderr]
        raise BrokerUnavailableError("Maven could not fetch Apache Kafka:\n" + "\n".join(errors[:3]))
    (libraries / "fetched").write_text(_pom_digest())


def _pom_digest() -> str:
    return hashlib.sha256(_POM.read_bytes()).hexdigest()


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

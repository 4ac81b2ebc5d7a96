"""No server of ours outlives the process that started it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deploy.stack.child import Child
from deploy.stack.kafka import RealKafka

_gone_seconds_max = 10.0
_PARENT = """
import time
{start}
print(process.pid, folder, flush=True)
time.sleep(60)
"""
_POSTGRES = """
from deploy.stack.postgres import EmbeddedPostgres
server = EmbeddedPostgres().start()
process, folder = server.process, server.root
"""
_EMBEDDED_BROKER = """
from deploy.stack.mock_broker import EmbeddedBroker
process, folder = EmbeddedBroker().start()._child.process, ""
"""
_KAFKA = """
from deploy.stack.kafka import RealKafka
broker = RealKafka().start()
process, folder = broker._child.process, broker.root
"""
_WATCHED = """
import subprocess, sys
from deploy.stack.child import Child
child = Child([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.DEVNULL, by_kernel=False)
process, folder = child.process, ""
"""


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(_POSTGRES, id="postgres"),
        pytest.param(_EMBEDDED_BROKER, id="embedded broker"),
        pytest.param(_WATCHED, id="a child the kernel does not tie to us"),
    ],
)
def test_a_server_goes_when_its_parent_is_killed(start: str) -> None:
    _kill_parent_and_wait(start)


@pytest.mark.kafka
def test_kafka_goes_when_its_parent_is_killed(real_kafka: RealKafka) -> None:
    _kill_parent_and_wait(_KAFKA)


def test_a_child_that_ignores_the_request_is_killed() -> None:
    stubborn = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"
    child = Child([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    assert child.process.stdout is not None
    child.process.stdout.readline()
    assert not child.stop(seconds_max=0.1)
    assert not child.running


def test_without_java_kafka_says_so() -> None:
    code = "from deploy.stack.kafka import real_kafka_available; print(real_kafka_available())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PATH": ""}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "no Java 17 or newer in JAVA_HOME or on PATH"


def _kill_parent_and_wait(start: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT.format(start=start)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        server, _, folder = parent.stdout.readline().strip().partition(" ")
        process = psutil.Process(int(server))
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + _gone_seconds_max
    while _runs(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    if folder:
        shutil.rmtree(Path(folder), ignore_errors=True)
    assert not _runs(process)


def _runs(process: psutil.Process) -> bool:
    try:
        status: str = process.status()
    except psutil.NoSuchProcess:
        return False
    return status != str(psutil.STATUS_ZOMBIE)  # dead, and whoever inherited it has not looked

"""Stripe's own stripe-mock: its published OpenAPI behind a local address, without any memory.

It says whether a request is one that Stripe knows. `go install` fetches and builds it once into `.run/stripe-mock`;
what Go keeps on the way is thrown away again. It listens on loopback only, by HTTP and by HTTPS.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploy.stack.child import Child

_HOME: Final = Path(__file__).parents[2] / ".run" / "stripe-mock"
_PROGRAM: Final = _HOME / "stripe-mock"
_MODULE: Final = "github.com/stripe/stripe-mock@latest"
_go_version_min: Final = (1, 21)  # from here on Go fetches the toolchain a module asks for by itself
_install_seconds_max: Final = 900.0
_start_seconds_max: Final = 30.0
_stop_seconds_max: Final = 10.0
_LISTENING: Final = re.compile(r"Listening for HTTP at address: 127\.0\.0\.1:(\d+)")


class StripeMockUnavailableError(RuntimeError):
    """There is no Go to build stripe-mock with, or it could not be built or started."""


def stripe_mock_available() -> str | None:
    """None where stripe-mock can run (it is built, or Go is there to build it); else why not."""
    if _PROGRAM.exists() or _go() is not None:
        return None
    return f"no Go {'.'.join(map(str, _go_version_min))} or newer on PATH"


def install_stripe_mock() -> Path:
    """Build stripe-mock, unless that is done; gives the program.

    Safe to call from several processes at once: one builds, the others wait.

    Raises:
        StripeMockUnavailableError: there is no Go, or it failed; the message quotes its errors.
    """
    go = _go()
    if go is None and not _PROGRAM.exists():
        raise StripeMockUnavailableError(f"stripe-mock cannot be built here: {stripe_mock_available()}")
    _HOME.mkdir(parents=True, exist_ok=True)
    with _locked(_HOME / "lock"):
        if go is not None and not _PROGRAM.exists():
            _build(go)
    return _PROGRAM


class StripeMock:
    """A running stripe-mock; a context manager. Keys for it look like `sk_test_x`."""

    def __init__(self) -> None:
        self.url = ""
        self._child: Child | None = None
        self._log = Path(tempfile.mkstemp(prefix="stripe-mock-", suffix=".log")[1])

    def start(self) -> Self:
        """Build it where need be, start it, and wait until it listens.

        Raises:
            StripeMockUnavailableError: it could not be built, or it ended; the message quotes why.
        """
        program = install_stripe_mock()
        # both addresses are named: left out, HTTPS would be served on every interface
        with self._log.open("wb") as log:
            self._child = Child(
                [str(program), "-http-addr", "127.0.0.1:0", "-https-addr", "127.0.0.1:0"], stdout=log
            )
        self.url = f"http://127.0.0.1:{self._port(self._child)}"
        return self

    def stop(self) -> None:
        """End it; safe to repeat."""
        if self._child is not None:
            self._child.stop(_stop_seconds_max)
        self._child = None
        self._log.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _port(self, child: Child) -> int:
        """It names its port once it listens; reading its specification takes it some seconds."""
        deadline = time.monotonic() + _start_seconds_max
        while True:
            said = self._log.read_text(errors="replace")
            found = _LISTENING.search(said)
            if found is not None:
                return int(found[1])
            if not child.running or time.monotonic() > deadline:
                self.stop()
                raise StripeMockUnavailableError(f"stripe-mock did not start; it said:\n{said[-2000:]}")
            time.sleep(0.05)


def _go() -> str | None:
    go = shutil.which("go")
    if go is None:
        return None
    answer = subprocess.run([go, "version"], capture_output=True, text=True, check=False)  # noqa: S603 (Go as found on PATH)
    version = re.search(r"go(\d+)\.(\d+)", answer.stdout)
    return go if version is not None and (int(version[1]), int(version[2])) >= _go_version_min else None


def _build(go: str) -> None:
    sys.stderr.write("Building Stripe's stripe-mock with Go, once; this takes half a minute …\n")
    with tempfile.TemporaryDirectory(dir=_HOME, prefix="build-") as scratch:
        places = {"GOBIN": f"{scratch}/bin", "GOPATH": f"{scratch}/path", "GOCACHE": f"{scratch}/cache"}
        done = subprocess.run(  # noqa: S603 (Go as found on PATH)
            [go, "install", "-modcacherw", _MODULE],  # writable, or the scratch folder could not be removed
            cwd=scratch,
            env={**os.environ, **places},  # noqa: TID251 (passed on)
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_install_seconds_max,
            check=False,
        )
        if done.returncode:
            raise StripeMockUnavailableError(f"Go could not build stripe-mock:\n{done.stderr[-2000:]}")
        Path(scratch, "bin", "stripe-mock").replace(_PROGRAM)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

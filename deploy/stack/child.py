"""A child process that never outlives us, even when we are killed.

On Linux the kernel ends it with the thread that started it (PR_SET_PDEATHSIG), so start children from a thread
that lives as long as they should. Elsewhere a watcher process holds one end of a pipe and ends the child when
the other end, ours, closes.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final

_PR_SET_PDEATHSIG: Final = 1
_WATCHER: Final = "import os, sys; sys.stdin.read(); os.kill(int(sys.argv[1]), 9)"


class Child:
    """One process in a session of its own, so that Ctrl-C reaches us and not it.

    Args:
        arguments: the program and its arguments.
        stdin: as for `subprocess.Popen`.
        stdout: the same; errors go there too unless `stderr` is given.
        stderr: the same.
        working_directory: where it runs; here, when None.
        environment: its variables; ours, when None.
        by_kernel: whether the kernel ties the child to us; a watcher does where it cannot.
    """

    def __init__(
        self,
        arguments: list[str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[bytes],
        stderr: int | None = subprocess.STDOUT,
        working_directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        by_kernel: bool = sys.platform == "linux",
    ) -> None:
        self.process = subprocess.Popen(  # noqa: S603 (programs of our own choosing)
            arguments,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=working_directory,
            env=environment,
            start_new_session=True,
            preexec_fn=_tie_to_parent() if by_kernel else None,  # noqa: PLW1509 (the child calls C functions only)
        )
        self._watcher = None if by_kernel else _watch(self.process.pid)

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def stop(self, seconds_max: float) -> bool:
        """Ask it to end (SIGTERM), insist after a while (SIGKILL); true if it ended by itself."""
        if self.running:
            self.process.terminate()
        try:
            self.process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        self._close()
        return True

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        if self._watcher is not None:  # before the process number can be given to another
            self._watcher.kill()
            self._watcher.communicate()


def _tie_to_parent() -> Callable[[], None]:
    prctl = ctypes.CDLL(None).prctl  # looked up here: between fork and exec nothing may take a lock
    parent = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel knew
            os._exit(1)

    return tie


def _watch(process_id: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 (our own interpreter)
        [sys.executable, "-c", _WATCHER, str(process_id)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )

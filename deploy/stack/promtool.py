"""promtool, Prometheus's own checker of configurations, rules and metrics: on PATH, or out of Debian's package.

The package is fetched once, with apt, and unpacked into `.run/prometheus`; nothing is installed and no server runs.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

_HOME: Final = Path(__file__).parents[2] / ".run" / "prometheus"
_UNPACKED: Final = _HOME / "usr" / "bin" / "promtool"
_fetch_seconds_max: Final = 300.0


class PromtoolUnavailableError(RuntimeError):
    """promtool is not here and cannot be fetched; the message says why."""


def promtool() -> Path:
    """Where promtool is; fetched first, if need be. Safe from several processes at once.

    Raises:
        PromtoolUnavailableError: it is not on PATH, and apt cannot fetch it.
    """
    found = shutil.which("promtool")
    if found is not None:
        return Path(found)
    _HOME.mkdir(parents=True, exist_ok=True)
    with (_HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _UNPACKED.exists():
            _fetch()
    return _UNPACKED


def main() -> int:
    """Say where promtool is, or why not; returns the exit code."""
    try:
        sys.stdout.write(f"{promtool()}\n")
    except PromtoolUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _fetch() -> None:
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise PromtoolUnavailableError(
                f"promtool is not on PATH, and there is no {tool} to fetch it with"
            )
    for archive in _HOME.glob("prometheus_*.deb"):
        archive.unlink()
    _run("apt-get", "download", "prometheus")
    [archive] = _HOME.glob("prometheus_*.deb")
    fresh = _HOME / "unpacking"
    shutil.rmtree(fresh, ignore_errors=True)
    _run("dpkg", "-x", str(archive), str(fresh))
    _UNPACKED.parent.mkdir(parents=True, exist_ok=True)
    (fresh / "usr" / "bin" / "promtool").replace(_UNPACKED)
    shutil.rmtree(fresh)
    archive.unlink()


def _run(*command: str) -> None:
    done = subprocess.run(  # noqa: S603 (Debian's own tools)
        command, cwd=_HOME, capture_output=True, text=True, timeout=_fetch_seconds_max, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise PromtoolUnavailableError(
            f"{command[0]} could not fetch promtool: {said[-1] if said else 'no reason'}"
        )


if __name__ == "__main__":
    sys.exit(main())

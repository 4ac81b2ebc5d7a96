"""AsyncAPI's own parser, as the judge of our document: a Node package, fetched once with npm into `.run/asyncapi`."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

PARSER: Final = "@asyncapi/parser@3.6.3"
_HOME: Final = Path(__file__).parents[2] / ".run" / "asyncapi"
_fetch_seconds_max: Final = 300.0
_parse_seconds_max: Final = 120.0
_HINT: Final = 2  # the parser's severities: 0 error, 1 warning, 2 and above a hint
_PROGRAM: Final = """
const { Parser, fromFile } = require("@asyncapi/parser");
fromFile(new Parser(), process.argv[1]).parse().then(({ document, diagnostics }) => console.log(JSON.stringify(
  [...diagnostics.map(({ severity, message, path }) => ({ severity, message: `${path.join(".")}: ${message}` })),
   ...(document ? [] : [{ severity: 0, message: "it cannot be parsed" }])])));
"""


class AsyncapiParserUnavailableError(RuntimeError):
    """The parser is not here and cannot be fetched; the message says why."""


def faults(document: Path) -> list[str]:
    """What the parser has against a document and all that it refers to, hints left out; nothing, where it is valid.

    Raises:
        AsyncapiParserUnavailableError: there is no Node, or npm cannot fetch the parser.
    """
    _fetch_once()
    said = json.loads(_run(_parse_seconds_max, "node", "-e", _PROGRAM, str(document)))
    return [each["message"] for each in said if each["severity"] < _HINT]


def main() -> int:
    """Fetch the parser, or say why not; returns the exit code."""
    try:
        _fetch_once()
    except AsyncapiParserUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _fetch_once() -> None:
    """Safe from several processes at once."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise AsyncapiParserUnavailableError(
                f"AsyncAPI's parser needs Node 18 or newer; there is no {tool}"
            )
    _HOME.mkdir(parents=True, exist_ok=True)
    fetched = _HOME / "fetched"
    with (_HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not fetched.exists() or fetched.read_text() != PARSER:
            quietly = ("--silent", "--no-fund", "--no-audit", "--ignore-scripts", "--prefix", str(_HOME))
            _run(_fetch_seconds_max, "npm", "install", *quietly, PARSER)
            fetched.write_text(PARSER)


def _run(seconds_max: float, *command: str) -> str:
    done = subprocess.run(  # noqa: S603 (Node's own tools)
        command, cwd=_HOME, capture_output=True, text=True, timeout=seconds_max, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise AsyncapiParserUnavailableError(f"{command[0]} failed: {said[-1] if said else 'no reason'}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())

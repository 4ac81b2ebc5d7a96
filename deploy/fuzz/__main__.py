"""`make fuzz`: damage the fixtures of every format for FUZZ_SECONDS (default 20), and look for a broken law.

`SEED=n` repeats a run's choices. A finding is written to `.run/fuzz/` and ends the run with exit code 1: it belongs into
the format's fixture folder, with what it should come to.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.fuzz.damage import damaged
from deploy.fuzz.laws import broken_law
from schemas.formats import DIALECTS, Decoder, Dialect, Format, decoder

_ROOT: Final = Path(__file__).parents[2]
_FIXTURES: Final = _ROOT / "tests" / "formats" / "fixtures"
_FINDINGS: Final = _ROOT / ".run" / "fuzz"
_AROUND: Final = frozenset({"settings.json", "expected.json"})
_message_seconds_max: Final = 1.0  # of CPU, for at most 200 kB: anything near it is worse than linear
_turn: Final = 200


def main() -> None:
    """Fuzz until the time is over; exit code 0 means that no law was broken."""
    console = Console(highlight=False)
    seconds = float(os.environ.get("FUZZ_SECONDS") or 20)  # noqa: TID251 (make passes its variables so)
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**32))  # noqa: TID251 (same)
    console.print(f"seed {seed}, {seconds:g} s over {len(DIALECTS)} formats")
    messages: Counter[str] = Counter()
    findings = 0
    choice, deadline = random.Random(seed), time.monotonic() + seconds  # noqa: S311 (damage, not secrets)
    targets = [(dialect, *_target(dialect)) for dialect in DIALECTS]
    while time.monotonic() < deadline:
        for dialect, decode, seeds in targets:
            for _ in range(_turn):
                findings += _try(console, dialect, decode, damaged(seeds, choice))
            messages[f"{dialect.kind} {dialect.name}"] += _turn
    for name, number in messages.items():
        console.print(f"{name:30} {number:>10,}")
    console.print(f"{'messages':30} {messages.total():>10,}   findings {findings}")
    sys.exit(1 if findings else 0)


def _target(dialect: Dialect) -> tuple[Decoder, list[bytes]]:
    folder = _FIXTURES / f"{dialect.kind}-{dialect.name}"
    settings = Format.model_validate_json((folder / "settings.json").read_text())
    seeds = [each.read_bytes() for each in sorted(folder.iterdir()) if each.name not in _AROUND]
    return decoder(dialect.kind, settings), seeds


def _try(console: Console, dialect: Dialect, decode: Decoder, value: bytes) -> int:
    """Decode one message; returns how many laws it broke, 0 or 1."""
    started = time.process_time()
    law = broken_law(decode, value)
    used = time.process_time() - started
    if law is None and used > _message_seconds_max:
        law = f"took {used:.1f} s of CPU"
    if law is None:
        return 0
    _FINDINGS.mkdir(parents=True, exist_ok=True)
    path = _FINDINGS / f"{dialect.kind}-{dialect.name}-{sha256(value).hexdigest()[:12]}"
    path.write_bytes(value)
    console.print(f"{dialect.kind} {dialect.name}: {law}\n  {path}", style="red", markup=False)
    return 1


if __name__ == "__main__":
    main()

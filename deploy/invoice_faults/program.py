"""An invoicer as it always runs, but for its clock, which the campaign moves, and its patience, which is short."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from pipeline.database import connect
from pipeline.invoicer import run_invoicer
from pipeline.logs import configure_logs
from pipeline.settings import Settings
from pipeline.signals import stop_on_signals

FROZEN_SECONDS_MAX: Final = 6.0
TIMEOUT_SECONDS: Final = (2.0, 1.0)


def main() -> None:
    """`python -m deploy.invoice_faults.program NAME CLOCK_FILE`, the rest from the environment."""
    name, clock_file = sys.argv[1], Path(sys.argv[2])
    settings = Settings.read()
    configure_logs(settings.log_level)
    engine = connect(settings.database_url.get_secret_value(), application_name=name)
    stop = threading.Event()
    with stop_on_signals(stop):
        run_invoicer(
            settings,
            engine,
            stop,
            clock_in(clock_file),
            timeout_seconds=TIMEOUT_SECONDS,
            frozen_seconds_max=FROZEN_SECONDS_MAX,
        )
    engine.dispose()


def clock_in(file: Path) -> Callable[[], datetime]:
    """A clock that says what is written in a file, each time it is asked."""
    return lambda: datetime.fromisoformat(file.read_text())


if __name__ == "__main__":
    main()

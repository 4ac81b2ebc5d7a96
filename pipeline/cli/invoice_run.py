"""`invoice run`: what is due now is done now, with a line that says how far it is and how long it may take."""

from __future__ import annotations

import threading

from rich.console import Console

from invoicing import progress_store
from pipeline.cli import session
from pipeline.cli.output import EXIT_WAITING, Refused, say
from pipeline.invoice_progress import Standing
from pipeline.invoicer import work_off
from pipeline.signals import stop_on_signals


def invoice_run() -> None:
    """Do what is due now at Stripe's permitted pace, then end; accounts that a running invoicer has are left to it.

    Exit code 3: invoices are left that wait for Stripe, or that another process works on.
    """
    stop, finished = threading.Event(), list[str]()
    console = Console(stderr=True, highlight=False)
    with session.database("invoice run") as engine, stop_on_signals(stop):
        with console.status("looking for what is due") as line:

            def tell(standing: Standing) -> None:
                line.update(str(standing))
                if not standing.left:
                    finished.append(str(standing))

            try:
                work_off(session.settings(), engine, stop, tell)
            except ValueError as error:
                raise Refused(str(error), exit_code=2) from error
        with engine.begin() as connection:
            left = progress_store.unfinished(connection)
    for each in finished:
        say(each)
    if left:
        raise Refused(
            f"{left:,} invoices are left: `tenant-billing invoice list` says why", exit_code=EXIT_WAITING
        )
    if not finished:
        say("nothing was due")

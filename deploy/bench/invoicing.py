"""How much of the pace that Stripe permits a month of invoices uses: requests a second over permitted requests a second.

One account, every answer 100 to 200 ms late, the rest as in production. The sandbox counts the requests itself, and
refuses those beyond Stripe's limit as Stripe does.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from uuid import UUID

from rich.console import Console
from sqlalchemy import Engine

from deploy.invoice_faults import world_store
from deploy.invoice_faults.campaign import sandbox_process
from deploy.invoice_faults.statements import Expected, make
from deploy.stack import sandbox_door
from deploy.stack.postgres import EmbeddedPostgres
from invoicing.news_store import receive_statement
from pipeline.clock import utc_now
from pipeline.database import connect, migrate
from pipeline.invoicer import work_off
from pipeline.settings import Settings

_ACCOUNT: Final = "reseller"
_STRIPE_ACCOUNT: Final = "acct_reseller"
_PERMITTED: Final = 50  # requests a second, more than Stripe permits on most endpoints
_LIMIT: Final = (
    65  # beyond so many within a second the sandbox answers 429; the same margin as 20 of Stripe's 25
)
_LATENCY_SECONDS: Final = 0.15
_JITTER_SECONDS: Final = 0.05


def run(console: Console) -> dict[str, float]:
    """Measure a month of invoices; INVOICES says how many (2 000)."""
    count = int(os.environ.get("INVOICES") or "2000")  # noqa: TID251 (make passes its variables through the environment)
    with ExitStack() as stack:
        postgres = EmbeddedPostgres()
        postgres.start()
        stack.callback(postgres.stop)
        engine = connect(postgres.url(), application_name="bench")
        stack.callback(engine.dispose)
        migrate(engine)
        sandbox_url = stack.enter_context(sandbox_process(Path(postgres.root)))
        expected = _make_month(engine, count)
        sandbox_door.set_latency(sandbox_url, _LATENCY_SECONDS, _JITTER_SECONDS)
        sandbox_door.set_limit(sandbox_url, _LIMIT)
        seconds, cpu_seconds = _work_off(engine, sandbox_url, console)
        state = sandbox_door.whole_state(sandbox_url)
        with engine.connect() as connection:
            left = count - world_store.settled(connection)
    invoices = state["accounts"][_STRIPE_ACCOUNT]["invoices"]
    wanted = sum(each.fate == "sent" for each in expected)
    assert not left, f"{left} of {count} statements were not settled"
    assert sum(each["auto_advance"] for each in invoices) == len(invoices) == wanted, (len(invoices), wanted)
    assert not state["faults"], state["faults"]  # no request was one too many
    asked, busiest = state["requests"], state["accounts"][_STRIPE_ACCOUNT]["busiest"]
    console.print(
        f"{count:,} statements, {wanted:,} invoices, {asked:,} requests in {seconds:.0f} s: {asked / seconds:.1f} "
        f"requests/s of {_PERMITTED} permitted, up to {busiest} at once, {cpu_seconds / asked * 1e3:.1f} ms of CPU each"
    )
    return {"invoices_per_second": wanted / seconds, "invoices_to_limit": asked / seconds / _PERMITTED}


def _make_month(engine: Engine, count: int) -> list[Expected]:
    made = make(count, seed=1, accounts=[_ACCOUNT])
    with engine.begin() as connection:
        world_store.write_world(connection, made)
        for each in made:
            receive_statement(connection, UUID(each.expected.statement_id), utc_now())
    return [each.expected for each in made]


def _work_off(engine: Engine, sandbox_url: str, console: Console) -> tuple[float, float]:
    """From the first request to the last, in seconds of the clock and of this process."""
    settings = Settings(
        stripe_api_base=sandbox_url, stripe_api_key=None, stripe_requests_per_second_max=_PERMITTED
    )
    started, cpu_started = time.perf_counter(), time.process_time()
    with console.status("") as status:
        work_off(settings, engine, threading.Event(), lambda standing: status.update(str(standing)))
    return time.perf_counter() - started, time.process_time() - cpu_started

"""`python -m deploy.up`: the whole stack kept running, for trying things by hand, until Ctrl-C.

Embedded parts by default; `KAFKA_BOOTSTRAP_SERVERS`, `DATABASE_URL` and `STRIPE_API_KEY` in the environment replace
one each by a real one. An embedded database is begun anew every time, with the sample carrier in it, whose last month
closes at once; a real one is brought to this version's schema, and nothing more.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

import orjson
from pydantic import ValidationError
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from deploy.sample.calls import SWITCH, Talk
from deploy.sample.carrier import sample_carrier
from deploy.sample.setup import finish, import_history, set_up_billing
from deploy.stack.broker import BrokerUnavailableError
from deploy.stack.postgres import PostgresUnavailableError
from deploy.stack.running import SERVICES, RealParts, RunningStack, ServiceEndedError
from pipeline.clock import utc_now
from pipeline.database import connect, migrate
from pipeline.logs import configure_logs
from pipeline.settings import Settings
from schemas.periods import Period

_LOGS: Final = Path(".run/up")
_PREFIX: Final = "TENANT_BILLING_"
_EXAMPLE: Final = _LOGS / "example.jsonl"
_FAILURES: Final = (ServiceEndedError, BrokerUnavailableError, PostgresUnavailableError, SQLAlchemyError)
_look_seconds: Final = 1.0
# Who tries things by hand does not want to wait five minutes for a SIP event, nor two days for a month to close.
_SOON: Final = {"SIP_WAIT_SECONDS": "10"}
_SOON_EMBEDDED: Final = {"GRACE_HOURS": "0", "CLOSER_INTERVAL_SECONDS": "2"}


def main() -> int:
    """Start everything, say where it is, wait for Ctrl-C or SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.up", description=__doc__)
    parser.add_argument(
        "--empty",
        action="store_true",
        help="no sample carrier: leave an embedded database in the state bootstrap",
    )
    empty = parser.parse_args().empty
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    configure_logs("error")
    console = Console(highlight=False)
    try:
        given = Settings()
        real = _real_parts(given)
        settings = _settings(embedded=real.database_url is None)
        with RunningStack(_LOGS.absolute(), settings, real=real) as stack:
            _start(stack, sample=not empty)
            if not stop.is_set():
                _tell(console, stack, sample=not empty and stack.real.database_url is None)
            while not stop.wait(_look_seconds):
                stack.check()
            console.print("stopping")
    except ValidationError as error:
        console.print(f"a setting is wrong: {error}", markup=False)
        return 2
    except _FAILURES as error:
        console.print(str(error), markup=False, soft_wrap=True)
        return 1
    return 0


def _start(stack: RunningStack, *, sample: bool) -> None:
    stack.start_parts()
    engine = connect(stack.database_url, application_name="up")
    try:
        migrate(engine)
        if sample and stack.real.database_url is None:
            now = utc_now()
            carrier = sample_carrier(Period.of(now).plus(-1))
            import_history(engine, carrier, lambda _kind, _made: None)
            set_up_billing(engine, carrier, linked=stack.real.stripe_api_key is None)
            finish(engine, carrier.period, stack.read_settings().months_ahead)
            _EXAMPLE.write_bytes(_example_call(now))
    finally:
        engine.dispose()
    for service in SERVICES:
        stack.start_service(service)


def _tell(console: Console, stack: RunningStack, *, sample: bool) -> None:
    """Where everything is, what to paste, and what to try."""
    real = stack.real
    parts = {
        "Kafka": (stack.kafka_bootstrap_servers, real.kafka_bootstrap_servers),
        "Postgres": (stack.database_url, real.database_url),
        "Stripe": (stack.stripe_api_base or "https://api.stripe.com", real.stripe_api_key),
    }
    for name, (address, is_real) in parts.items():
        console.print(f"{name:9} {address}{'' if is_real else '  (embedded)'}", soft_wrap=True, markup=False)
    for service, port in stack.metrics_ports.items():
        console.print(f"{'metrics':9} http://127.0.0.1:{port}/metrics  ({service})", soft_wrap=True)
    console.print(f"{'logs':9} {stack.logs}\n\nPaste into another shell:\n", soft_wrap=True)
    for name, value in stack.environment.items():
        if name != "STRIPE_API_KEY":  # it is in that shell already, or nobody's business
            console.print(f"export {name}={shlex.quote(value)}", soft_wrap=True, markup=False)
    console.print("\nThen try:\n")
    for command in _sample_commands(utc_now()) if sample else _EMPTY_COMMANDS:
        console.print(f".venv/bin/tenant-billing {command}", soft_wrap=True, markup=False)
    console.print("\nCtrl-C stops everything that was started here.")


_EMPTY_COMMANDS: Final = (
    "bootstrap status",
    "account add reseller --name 'A reseller'",
    "bootstrap finish",
)


def _sample_commands(now: datetime) -> tuple[str, ...]:
    [example] = map(orjson.loads, _EXAMPLE.read_bytes().splitlines())
    last_month = Period.of(now).plus(-1)
    return (
        f"publish calls.raw {_EXAMPLE}",
        "usage",
        f"explain {SWITCH} {example['id']}",
        f"statement show northstar {last_month} --tenant bigcustomer.mypbx.com",
        "invoice list",
    )


def _example_call(now: datetime) -> bytes:
    """A call to one of the sample's numbers that ended a moment ago."""
    talk = Talk(now - timedelta(seconds=70), timedelta(seconds=5), Decimal(60))
    record = {
        "id": f"example-{now:%Y%m%d%H%M%S}",
        "switch": SWITCH,
        "service": "call",
        "direction": "inbound",
        "call_id": f"example-{now:%Y%m%d%H%M%S}@example.com",
        "from_number": "+13035550101",
        "to_number": "+12125550100",
        **talk.fields(says_seconds=True),
    }
    return orjson.dumps(record) + b"\n"


def _settings(*, embedded: bool) -> dict[str, str]:
    """What the user set for the product beside addresses goes to the services and into the lines to paste."""
    set_by_user = {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}  # noqa: TID251 (passed on)
    addresses = {f"{_PREFIX}{name}" for name in ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS")}
    kept = {name: value for name, value in set_by_user.items() if name not in addresses}
    soon = _SOON | _SOON_EMBEDDED if embedded else _SOON
    return {**{f"{_PREFIX}{name}": value for name, value in soon.items()}, **kept}


def _real_parts(given: Settings) -> RealParts:
    """The parts whose addresses were set."""
    named = given.model_fields_set
    return RealParts(
        kafka_bootstrap_servers=given.kafka_bootstrap_servers if "kafka_bootstrap_servers" in named else None,
        database_url=given.database_url.get_secret_value() if "database_url" in named else None,
        stripe_api_key=given.stripe_api_key.get_secret_value() if given.stripe_api_key else None,
        stripe_api_base=given.stripe_api_base if given.stripe_api_key else None,
    )


if __name__ == "__main__":
    sys.exit(main())

"""`tenant-billing`: one command line for everything an operator does.

Exit codes: 0 done; 1 refused, with the reason on standard error; 2 wrong usage; 3 not now (something is waited for).
"""

from __future__ import annotations

import sys
from typing import Final

import typer

from pipeline.cli import directory, invoices, months, services, stream
from pipeline.cli.output import Refused, console_error, log_beside_output

app: Final = typer.Typer(
    name="tenant-billing",
    no_args_is_help=True,
    help="From call records on Kafka to tenants' statements and Stripe invoices. Times are UTC, money is exact.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for part in (services, directory, stream, months, invoices):
    part.add_to(app)


def main() -> None:
    """Run the command line; a refusal is one line on standard error, never a traceback."""
    log_beside_output()
    try:
        app()
    except Refused as refused:
        console_error(str(refused))
        sys.exit(refused.exit_code)

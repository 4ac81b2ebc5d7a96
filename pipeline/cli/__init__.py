"""`tenant-billing`: one command line for everything an operator does.

Exit codes: 0 done; 1 refused, with the reason on standard error; 2 wrong usage; 3 not now (something is waited for).
"""

from __future__ import annotations

import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup

from pipeline.cli import (
    directory,
    explain,
    imports,
    invoices,
    months,
    positions,
    quarantine,
    services,
    stream,
    tariffs,
    topics,
)
from pipeline.cli.examples import EXAMPLES
from pipeline.cli.output import Refused, console_error, log_beside_output

_SUBJECTS: Final = {
    "Running it": (services, topics),
    "Who owns what": (directory, tariffs, imports),
    "Call records": (stream, positions, quarantine, explain),
    "Months and statements": (months,),
    "Invoices": (invoices,),
}
_EPILOG: Final = """
Examples:

\b
tenant-billing number assign reseller +12125550100 --tenant bigcustomer.mypbx.com
tenant-billing usage --period 2026-10 --account reseller
tenant-billing statement list --period 2026-10 --json
tenant-billing --install-completion

Exit codes: 0 done; 1 refused, with the reason on standard error; 2 wrong usage or a wrong setting; 3 not now: something is waited for.

Settings come from the environment. Colours and progress bars are for terminals only; NO_COLOR=1 turns colours off there too.
"""


class _BySubject(TyperGroup):
    """The commands of the first level, under their subjects."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 (typer keeps its Click to itself)
        width = formatter.width - 6 - max(map(len, self.commands))
        for subject in _SUBJECTS:
            mine = [
                each for each in self.commands.values() if getattr(each, "rich_help_panel", None) == subject
            ]
            with formatter.section(subject):
                formatter.write_dl([(each.name, each.get_short_help_str(width)) for each in mine])


def _command_line() -> typer.Typer:
    whole = typer.Typer(
        name="tenant-billing",
        cls=_BySubject,
        no_args_is_help=True,
        help="From call records on Kafka to tenants' statements and Stripe invoices. Times are UTC, money is exact.",
        epilog=_EPILOG,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for subject, parts in _SUBJECTS.items():
        already = len(whole.registered_commands), len(whole.registered_groups)
        for part in parts:
            part.add_to(whole)
        for command in whole.registered_commands[already[0] :]:
            command.rich_help_panel = subject
        for group in whole.registered_groups[already[1] :]:
            group.rich_help_panel = subject
    _show_examples(whole)
    return whole


def _show_examples(group: typer.Typer, *path: str) -> None:
    """Give each command the example that its help ends with."""
    for command in group.registered_commands:
        name = command.name or str(command.callback and command.callback.__name__)
        words = " ".join((*path, name))
        command.epilog = f"Example: {f'tenant-billing {words} {EXAMPLES[words]}'.rstrip()}"
    for below in group.registered_groups:
        assert below.typer_instance is not None
        _show_examples(below.typer_instance, *path, str(below.name))


app: Final = _command_line()


def main() -> None:
    """Run the command line; a refusal is one line on standard error, never a traceback."""
    log_beside_output()
    try:
        app()
    except Refused as refused:
        console_error(str(refused))
        sys.exit(refused.exit_code)

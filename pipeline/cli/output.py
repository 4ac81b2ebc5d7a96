"""How the command line speaks: tables for people, `--json` for programs, refusals on standard error."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
import structlog
import typer
from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from pipeline.logs import leave_kafka_unheard
from schemas.money import plain
from schemas.periods import Period, utc_text

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON with stable field names.")]
EXIT_REFUSED: Final = 1
EXIT_WAITING: Final = 3
_piped_columns: Final = 400  # a table that another program reads is not folded at a terminal's 80
_JSON_OPTIONS: Final = (
    orjson.OPT_INDENT_2
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS  # ours say it better
)


class Refused(Exception):  # noqa: N818 (it reads as what happened)
    """The command was not carried out; the message says why, and what would help."""

    def __init__(self, message: str, exit_code: int = EXIT_REFUSED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def log_beside_output() -> None:
    """What the program itself logs goes to standard error, from warnings up; services say more (`pipeline.logs`)."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    leave_kafka_unheard()


def show(rows: Sequence[Any], *, as_json: bool, title: str, empty: str = "nothing") -> None:
    """Print rows (dataclasses, named tuples or models): a table, or a JSON array."""
    records = [_fields(row) for row in rows]
    if as_json:
        print_json(records)
    elif not records:
        _console().print(f"{title}: {empty}", highlight=False, markup=False)
    else:
        _print_table(records, title)


def show_one(row: Any, *, as_json: bool, title: str) -> None:  # noqa: ANN401 (any record)
    """Print one record: field by field, or a JSON object."""
    record = _fields(row)
    if as_json:
        print_json(record)
        return
    table = Table(title=Text(title), box=box.SIMPLE, show_header=False, title_justify="left")
    for name, value in record.items():
        table.add_row(name, Text(_cell(value)))
    _console().print(table)


def print_json(value: Any) -> None:  # noqa: ANN401 (any JSON)
    """Print JSON on standard output; money as text, times as RFC 3339."""
    sys.stdout.write(orjson.dumps(value, default=_json, option=_JSON_OPTIONS).decode() + "\n")


def say(message: str) -> None:
    """Tell a person what was done, on standard error, so that standard output stays a program's."""
    Console(stderr=True).print(message, highlight=False, markup=False, soft_wrap=True)


def console_error(message: str) -> None:
    """Say why a command was refused."""
    Console(stderr=True).print(
        f"refused: {message}", style="red", highlight=False, markup=False, soft_wrap=True
    )


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, shown on a terminal; yields a function that is told how much more is done."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda more: bar.update(task, advance=more)


def period_argument(text: str) -> Period:
    """Read a month from the command line."""
    try:
        return Period.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _print_table(records: Sequence[dict[str, Any]], title: str) -> None:
    table = Table(title=Text(title), box=box.SIMPLE, title_justify="left")
    for name, value in records[0].items():
        numeric = isinstance(value, int | Decimal) and not isinstance(value, bool)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for record in records:
        table.add_row(*(Text(_cell(value)) for value in record.values()))
    _console().print(table)


def _console() -> Console:
    console = Console()
    if not console.is_terminal and console.width < _piped_columns:
        console.width = _piped_columns
    return console


def _fields(row: Any) -> dict[str, Any]:  # noqa: ANN401 (any record)
    if isinstance(row, BaseModel):
        return row.model_dump(mode="json")
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    if hasattr(row, "_asdict"):
        return dict(row._asdict())
    return dict(row)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return utc_text(value)[:19] + "Z"
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, dict | list | tuple):
        return orjson.dumps(value, default=_json, option=_JSON_OPTIONS & ~orjson.OPT_INDENT_2).decode()
    return str(value)


def _json(value: object) -> object:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, date | UUID | Period):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, frozenset | set):
        return sorted(value)
    return _fields(value)

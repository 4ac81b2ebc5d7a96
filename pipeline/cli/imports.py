"""Who owns what, from CSV files: import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from attribution import importing
from pipeline.cli.directory import change
from pipeline.cli.output import AsJson, Refused, print_json, progress, say


def add_to(app: typer.Typer) -> None:
    """Add the command of this subject."""
    app.command("import")(import_file)


def import_file(
    kind: Annotated[
        Literal["accounts", "tenants", "numbers", "ips"], typer.Argument(help="What the file holds.")
    ],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV with a header row.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Import a CSV file, all of it or nothing; in the state bootstrap rows may carry made_at and ended_at."""
    with file.open("rb") as lines:
        total = sum(1 for _ in lines)
    with (
        change("import") as (connection, made_at),
        file.open(encoding="utf-8", newline="") as rows,
        progress(f"importing {kind}", total) as advance,
    ):
        try:
            report = importing.import_csv(connection, made_at, kind, rows, advance)
        except importing.BadImportError as error:
            bad = "\n".join(f"  row {each.row}: {each.value!r}: {each.reason}" for each in error.bad_rows)
            raise Refused(f"nothing was imported, {error.bad_row_count} rows are bad:\n{bad}") from error
        except UnicodeDecodeError as error:
            raise Refused(f"{file} is not UTF-8: {error}") from error
    if as_json:
        print_json(report)
    else:
        say(
            f"{report.made} {kind} imported, {report.moved} of them moved, {report.unchanged} were so already"
        )

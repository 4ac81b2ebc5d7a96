"""Why a record stands where it stands."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from pipeline import explain as explaining
from pipeline.cli import session
from pipeline.cli.output import AsJson, Refused, print_json, say, show, show_one
from pipeline.explained import Explained

_SECTIONS: Final = {  # in the order in which a person asks
    "received": "received",
    "record": "what the switch said",
    "whose": "whose it is",
    "sip_event": "the SIP event that spoke for it",
    "assignment": "the assignment that decided",
    "usage": "what it comes to",
    "posting": "the month it was posted to",
    "waits": "what it waits for",
    "quarantine": "why it is in quarantine",
}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    app.command()(explain)


def explain(
    switch: Annotated[str, typer.Argument(help="The switch's name, as its records give it.")],
    record_id: Annotated[str, typer.Argument(metavar="ID", help="The record's id on that switch.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show all that decided about a record: where it came from, whose it is and why, its class, cost and month.

    All records of that id are shown, whatever their date, posted, held or quarantined. Exit code 1: never seen.
    """
    settings = session.settings()
    with session.transaction("explain") as connection:
        found = explaining.explain(connection, settings, switch, record_id)
        read = explaining.calls_read(connection, settings)
    if as_json:
        print_json({"switch": switch, "id": record_id, "found": found, "read": read})
    else:
        for number, each in enumerate(found, 1):
            _show(each, f"{number} of {len(found)}: {each.outcome}")
    if not found:
        places = ", ".join(f"{each.topic}[{each.partition}] to offset {each.next_offset}" for each in read)
        raise Refused(
            f"never seen: record {record_id!r} of switch {switch!r}; read so far: {places or 'nothing'}"
        )


def _show(explained: Explained, title: str) -> None:
    say(title)
    for name, heading in _SECTIONS.items():
        section = getattr(explained, name)
        if section is not None:
            show_one(section, as_json=False, title=heading)
    if explained.asset_history:
        show(explained.asset_history, as_json=False, title="whose the number or source IP was, and when")
    for note in explained.notes:
        say(f"note: {note}")

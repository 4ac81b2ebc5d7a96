"""What was not posted, and that nothing is lost: quarantine and conservation."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline import replay
from pipeline.cli import session
from pipeline.cli.output import AsJson, Refused, print_json, progress, say, show
from pipeline.snapshot import Snapshots
from rollup import conservation_store, quarantine_store, reading_store
from rollup.quarantine_store import Chosen

_rows_max = 1000

OfReason = Annotated[str | None, typer.Option("--reason", help="Only this reason, such as unreadable.")]
OfAccount = Annotated[str | None, typer.Option("--account", help="Only this account, by its code.")]
OfInput = Annotated[str | None, typer.Option("--input", help="Only this input topic, such as calls.raw.")]
OfId = Annotated[list[int] | None, typer.Option("--id", help="Only this record; may be repeated.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    quarantine = typer.Typer(
        no_args_is_help=True, help="Records that could not be read or must not be posted."
    )
    quarantine.command("list")(quarantine_list)
    quarantine.command("replay")(quarantine_replay)
    quarantine.command("discard")(quarantine_discard)
    app.add_typer(quarantine, name="quarantine")
    app.command()(conservation)


def quarantine_list(
    *,
    reason: OfReason = None,
    account: OfAccount = None,
    everything: Annotated[bool, typer.Option("--all", help="Replayed and discarded ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List records in quarantine, oldest first."""
    with session.transaction("quarantine list") as connection:
        rows = reading_store.quarantined(
            connection, reason=reason, account=account, state=None if everything else "open", limit=_rows_max
        )
    show(rows, as_json=as_json, title="quarantine", empty="nothing")


def quarantine_replay(
    *,
    reason: OfReason = None,
    account: OfAccount = None,
    topic: OfInput = None,
    record_id: OfId = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would come of it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try quarantined records again, once a tariff, a format or an assignment was put right; safe to repeat.

    Of a closed month they are posted as late usage. What still cannot be posted stays, with its new reason.
    """
    chosen = Chosen(reason, account, topic, tuple(record_id or ()))
    settings = session.settings()
    with session.database("quarantine replay") as engine:
        with engine.connect() as connection:
            total = quarantine_store.extent(connection, chosen).records
        with progress("trying again" + (" (dry run)" if dry_run else ""), total) as advance:
            outcomes = (
                replay.replay(engine, settings, Snapshots(engine), chosen, dry_run=dry_run, progress=advance)
                if total
                else {}
            )
    rows = [
        {"outcome": outcome, "reason": why, "records": records}
        for (outcome, why), records in sorted(outcomes.items())
    ]
    title = "what would come of them" if dry_run else "what came of them"
    show(rows, as_json=as_json, title=title, empty="no such record is in quarantine")


def quarantine_discard(
    *,
    reason: Annotated[str, typer.Option(help="Those in quarantine for this reason, such as unreadable.")],
    account: OfAccount = None,
    topic: OfInput = None,
    record_id: OfId = None,
    because: Annotated[str, typer.Option(help="Why they are given up; kept with them.")] = "discarded",
    as_json: AsJson = False,
) -> None:
    """Give quarantined records up, for good: they are kept, and counted as quarantined, but never tried again."""
    chosen = Chosen(reason, account, topic, tuple(record_id or ()))
    with session.database("quarantine discard") as engine:
        with engine.connect() as connection:
            total = quarantine_store.extent(connection, chosen).records
        with progress("discarding", total) as advance:
            discarded = replay.discard(engine, chosen, because, advance)
    if as_json:
        print_json({"discarded": discarded})
    else:
        say(f"{discarded} records were discarded")


def conservation(
    *,
    count_rows: Annotated[
        bool, typer.Option("--count-rows", help="Count the ledger's rows too, by topic; takes one scan.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show that received = posted + duplicate + held + quarantined + ignored + context; exit code 1 if it does not hold."""
    with session.transaction("conservation") as connection:
        lines = conservation_store.by_topic(connection, count_rows=count_rows)
        counts = reading_store.outcome_counts(connection)
    violations = [violation for line in lines for violation in line.violations]
    if as_json:
        *topics, total = [{**line._asdict(), "holds": line.holds} for line in lines]
        del total["topic"]
        print_json(
            {
                **total,
                "holds": not violations,
                "topics": topics,
                "outcomes": [each._asdict() for each in counts],
            }
        )
    else:
        show(counts, as_json=False, title="outcomes")
        show(lines, as_json=False, title="conservation")
    if violations:
        raise Refused("records are not accounted for:\n" + "\n".join(f"  - {each}" for each in violations))

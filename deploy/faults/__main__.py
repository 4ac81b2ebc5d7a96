"""`make faults SEED=1 COUNT=200`: exit 0 only if nothing was lost or doubled, and every statement is right."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from deploy.faults.campaign import Outcome, run
from deploy.faults.plan import plan
from pipeline.cli.output import progress

_shown_findings_max = 30


def main() -> None:
    """Run the campaign and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m deploy.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--count", type=int, default=20, help="kills; half as many other faults come with them"
    )
    parser.add_argument("--json", type=Path, help="write the report there")
    parser.add_argument("--logs", type=Path, help="keep the workers' logs there")
    asked = parser.parse_args()
    with progress(f"faults, seed {asked.seed}", len(plan(asked.seed, asked.count))) as advance:
        done = 0

        def told(number: int, _what: str) -> None:
            nonlocal done
            advance(number - done)
            done = number

        outcome = run(seed=asked.seed, count=asked.count, progress=told, logs=asked.logs)
    show(outcome, Console(soft_wrap=True))
    if asked.json:
        asked.json.write_text(json.dumps(as_json(outcome), indent=2))
    sys.exit(1 if outcome.verdict.findings else 0)


def show(outcome: Outcome, console: Console) -> None:
    """The report: faults by kind, what became of the records, and what is wrong."""
    table = Table("fault", "times", box=box.SIMPLE)
    for kind, times in sorted(outcome.counts.items()):
        table.add_row(kind, str(times))
    console.print(table)
    restarts = ", ".join(f"{times} {how}" for how, times in sorted(outcome.restarts.items()))
    console.print(f"workers started again: {restarts or 'none'}", highlight=False)
    came = ", ".join(
        f"{' '.join(key).strip()} {records:,}" for key, records in sorted(outcome.outcomes.items())
    )
    console.print(
        f"{outcome.sent:,} messages sent, {outcome.records:,} records to be posted: {came}", highlight=False
    )
    console.print(f"{outcome.statements:,} statements, {outcome.events:,} events", highlight=False)
    for finding in outcome.verdict.findings[:_shown_findings_max]:
        console.print(finding, highlight=False, markup=False)
    right = "nothing was lost or doubled" if not outcome.verdict.findings else "WRONG"
    console.print(
        f"lost {outcome.verdict.lost}, doubled {outcome.verdict.doubled}: {right} "
        f"(seed {outcome.seed}, {outcome.seconds:.0f} s)",
        highlight=False,
    )


def as_json(outcome: Outcome) -> dict[str, object]:
    """The report for programs."""
    return {
        "seed": outcome.seed,
        "planned": [asdict(fault) for fault in outcome.planned],
        "faults": dict(outcome.counts),
        "restarts": dict(outcome.restarts),
        "sent": outcome.sent,
        "records": outcome.records,
        "outcomes": {" ".join(key).strip(): records for key, records in outcome.outcomes.items()},
        "statements": outcome.statements,
        "events": outcome.events,
        "lost": outcome.verdict.lost,
        "doubled": outcome.verdict.doubled,
        "findings": outcome.verdict.findings,
        "seconds": round(outcome.seconds, 1),
    }


if __name__ == "__main__":
    main()

"""`make invoice-faults SEED=1 COUNT=2000 KILLS=50`: exit 0 only if every statement has its one right invoice."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from rich.console import Console

from deploy.invoice_faults.campaign import Outcome, run

_shown_findings_max = 30


def main() -> None:
    """Run the campaign and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m deploy.invoice_faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=2000, help="statements")
    parser.add_argument("--kills", type=int, default=50, help="times that an invoicer is killed, at least")
    asked = parser.parse_args()
    console = Console(soft_wrap=True)
    outcome = run(console, seed=asked.seed, count=asked.count, kills=asked.kills)
    console.print(told(outcome), highlight=False)
    sys.exit(1 if outcome.findings else 0)


def told(outcome: Outcome) -> str:
    """What happened, and what is wrong."""
    counts, fates = outcome.counts, Counter(each.fate for each in outcome.expected)
    hit = sum(outcome.faults.values())
    kinds = ", ".join(f"{name} {times:,}" for name, times in sorted(outcome.faults.items()))
    fees = sum(each.fee is not None for each in outcome.expected)
    lines = [
        f"{outcome.events:,} events of {len(outcome.expected):,} statements",
        f"{fates['sent']:,} to be sent with {fees:,} phantom fees, {fates['nothing_to_bill']:,} with nothing to bill",
        f"{fates['not_billed']:,} without a profile",
        f"{outcome.requests:,} requests, {hit:,} of them with a fault ({hit / max(1, outcome.requests):.1%}): {kinds}",
        f"{counts.kills} invoicers killed, {counts.died_of_frost} of {counts.freezes} frozen ones dead on waking",
        f"{counts.sessions_cut} database sessions cut, {counts.days_passed_over} times a day or more passed over",
    ]
    lines += outcome.findings[:_shown_findings_max]
    verdict = "Every statement has its one right invoice."
    lines.append(f"WRONG: {len(outcome.findings)} findings" if outcome.findings else verdict)
    return "\n".join([*lines[:-1], f"{lines[-1]} ({outcome.seconds:.0f} s)"])


if __name__ == "__main__":
    main()

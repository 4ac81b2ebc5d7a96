"""Asking everybody what came out: the database, the ledger's own audit, and Stripe's books."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Engine

from deploy.sample import outcome_store
from deploy.sample.comparison import Outcome
from deploy.sample.outcome_store import ClosedStatement
from deploy.stack.sandbox_door import invoice_subtotals
from invoicing import listing_store
from rollup import audit_store, conservation_store
from schemas.periods import Period


def gather(
    engine: Engine,
    period: Period,
    stripe_api_base: str,
    statements: tuple[ClosedStatement, ...],
    acknowledged: int,
) -> Outcome:
    """All that came out.

    Args:
        engine: the installation's database.
        period: the month that was closed.
        stripe_api_base: the sandbox.
        statements: as they were before anything late came.
        acknowledged: how many messages the broker took.
    """
    with engine.begin() as connection:
        unattributed: Counter[str] = Counter()
        for usage in outcome_store.unattributed(connection):
            unattributed[usage.reason] += usage.records
        headers: Counter[str] = Counter()
        for header in outcome_store.ignored_headers(connection):
            headers[header.named] += header.records
        rebuilt = [each for each in audit_store.rebuild(connection, period) if not each.same]
        return Outcome(
            outcomes=outcome_store.outcomes(connection),
            statements=statements,
            statements_after_late=tuple(outcome_store.statements(connection, period)),
            usage=outcome_store.usage(connection, period),
            late_usage=outcome_store.usage(connection, period.next()),
            unattributed=unattributed,
            headers_ignored=headers,
            invoices=tuple(listing_store.list_invoices(connection, period=period.first_day)),
            fees=tuple(listing_store.list_fees(connection)),
            invoice_totals=invoice_subtotals(stripe_api_base),
            conservation=conservation_store.conservation(connection),
            acknowledged=acknowledged,
            gap_records=outcome_store.gap_records(connection),
            discrepancies=(
                *(each.text for each in audit_store.reconcile(connection)),
                *(f"statement {each.statement_id} is not what the ledger gives" for each in rebuilt),
            ),
        )

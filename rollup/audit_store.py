"""Does it still add up: statements recomputed from the ledger, the chain of hashes, sums against the ledger (C6, C7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import Connection, text

from rollup.close_store import NotSealedError, compute
from rollup.ledger import UsageGroup, UsageSums
from rollup.month_sums_store import differences, ledger_usage, monthly_usage
from rollup.months_store import PeriodRow, period_row, period_rows
from rollup.statement import CHAIN_START, chained
from schemas.periods import Period
from schemas.statements import sha256_hex


@dataclass(frozen=True, slots=True)
class RebuiltStatement:
    """A statement beside what the ledger gives today; a hash is None where there is no such statement."""

    statement_id: str
    account: str
    tenant: str | None
    sha256: str | None
    rebuilt_sha256: str | None

    @property
    def same(self) -> bool:
        """Whether the ledger still gives the statement's very bytes."""
        return self.sha256 == self.rebuilt_sha256


class DiscrepancyKind(StrEnum):
    """What can be found wrong."""

    CHAIN = "chain"
    HASH = "hash"
    MONTHLY_USAGE = "monthly_usage"
    STATEMENT_TOTAL = "statement_total"


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One thing that does not add up."""

    kind: DiscrepancyKind
    text: str


def rebuild(connection: Connection, period: Period) -> tuple[RebuiltStatement, ...]:
    """Recompute every statement of a closed month and compare hashes (C6).

    Raises:
        NotSealedError: the month is not closed, so there is nothing to compare with.
    """
    row = period_row(connection, period)
    if row is None or row.state != "closed" or row.sealed_at is None:
        raise NotSealedError(f"{period} is not closed")
    month = compute(connection, period, row.sealed_at, ledger_usage(connection, period))
    rebuilt = {each.statement_id: each for _, each in month.statements}
    stored = connection.execute(
        text(
            "select cast(s.id as text) as id, a.code as account, t.code as tenant, s.sha256 from statements s "
            "join accounts a on a.id = s.account_id left join tenants t on t.id = s.tenant_id "
            "where s.period = :period order by s.sequence"
        ),
        {"period": period.first_day},
    )
    found = [
        RebuiltStatement(
            row.id,
            row.account,
            row.tenant,
            row.sha256,
            sha256_hex(rebuilt.pop(row.id).canonical_bytes()) if row.id in rebuilt else None,
        )
        for row in stored
    ]
    for extra in rebuilt.values():
        sha256 = sha256_hex(extra.canonical_bytes())
        found.append(RebuiltStatement(extra.statement_id, extra.account, extra.tenant, None, sha256))
    return tuple(found)


def reconcile(connection: Connection) -> tuple[Discrepancy, ...]:
    """Everything that does not add up, any time: empty is well. Reads the ledger once.

    An open month is compared within one snapshot; ask in a transaction that is `repeatable read`.
    """
    found = list(_chain(connection))
    for row in period_rows(connection):
        usage = ledger_usage(connection, row.period)
        wrong = differences(usage, monthly_usage(connection, row.period))
        found += [Discrepancy(DiscrepancyKind.MONTHLY_USAGE, f"{row.period}: {each}") for each in wrong]
        if row.state == "closed":
            found += _statement_totals(connection, row, usage)
    return tuple(found)


def _chain(connection: Connection) -> Iterator[Discrepancy]:
    rows = connection.execute(
        text(
            "select sequence, cast(id as text) as id, body, sha256, chain from statements order by sequence"
        ),
        execution_options={"yield_per": 1000},
    )
    previous = CHAIN_START
    for expected, row in enumerate(rows, start=1):
        if row.sequence != expected:
            yield Discrepancy(
                DiscrepancyKind.CHAIN, f"statement {expected} is missing before {row.sequence} ({row.id})"
            )
            return
        if sha256_hex(bytes(row.body)) != row.sha256:
            yield Discrepancy(
                DiscrepancyKind.HASH, f"the bytes of statement {row.id} are not those that were hashed"
            )
        if row.chain != chained(previous, row.sha256):
            yield Discrepancy(
                DiscrepancyKind.CHAIN, f"the chain breaks at statement {row.sequence} ({row.id})"
            )
        previous = row.chain


def _statement_totals(
    connection: Connection, row: PeriodRow, usage: dict[UsageGroup, UsageSums]
) -> Iterator[Discrepancy]:
    stated = {
        (each.account_id, each.tenant_id): each.usage_cost
        for each in connection.execute(
            text("select account_id, tenant_id, usage_cost from statements where period = :period"),
            {"period": row.period.first_day},
        )
    }
    ledger: dict[tuple[int, int | None], Decimal] = {}
    for group, sums in usage.items():
        if group.account_id is not None:
            owner = (group.account_id, group.tenant_id)
            ledger[owner] = ledger.get(owner, Decimal(0)) + sums.cost
    for account_id, tenant_id in sorted(stated.keys() | ledger.keys(), key=str):
        owner = (account_id, tenant_id)
        if stated.get(owner) != ledger.get(owner, Decimal(0)):
            yield Discrepancy(
                DiscrepancyKind.STATEMENT_TOTAL,
                f"{row.period}: account {account_id}, tenant {tenant_id}: the statement says {stated.get(owner)}, "
                f"the ledger {ledger.get(owner, Decimal(0))}",
            )

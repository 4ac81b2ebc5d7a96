"""Does it still add up: statements recomputed from the ledger, the chain of hashes, sums against the ledger (C6, C7)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Row, text

from rollup.close_store import NotSealedError, month_facts
from rollup.month_sums_store import differences, ledger_usage, monthly_usage, owner_names
from rollup.months_store import period_row, period_rows
from rollup.statement import CHAIN_START, Owner, chained, render
from rollup.sums import UsageGroup, UsageSums
from schemas.events import PERIOD_CLOSED
from schemas.periods import Period
from schemas.statements import RENDERER, Statement, sha256_hex


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
    COLUMNS = "columns"
    MONTHLY_USAGE = "monthly_usage"
    STATEMENT_TOTAL = "statement_total"
    ACCOUNT_TOTAL = "account_total"


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One thing that does not add up."""

    kind: DiscrepancyKind
    text: str


class _Body(NamedTuple):
    """What the bytes of one statement say of themselves."""

    facts: tuple[str | None, ...]  # id, period, kind, account, tenant, currency
    usage: UsageSums
    total_cost: Decimal


_Statements = Mapping[Period, Mapping[Owner, _Body | None]]  # None: its bytes cannot be read


def rebuild(connection: Connection, period: Period) -> tuple[RebuiltStatement, ...]:
    """Recompute every statement of a closed month, by the renderer that wrote it, and compare hashes (C6).

    Raises:
        NotSealedError: the month is not closed, so there is nothing to compare with.
        UnknownRendererError: a later version of the program closed the month.
    """
    row = period_row(connection, period)
    if row is None or row.state != "closed" or row.sealed_at is None:
        raise NotSealedError(f"{period} is not closed")
    month = month_facts(connection, period, row.sealed_at, ledger_usage(connection, period))
    stored = connection.execute(
        text(
            "select cast(s.id as text) as id, s.account_id, s.tenant_id, a.code as account, t.code as tenant, s.sha256, "
            "s.body from statements s join accounts a on a.id = s.account_id left join tenants t on t.id = s.tenant_id "
            "where s.period = :period order by s.sequence"
        ),
        {"period": period.first_day},
        execution_options={"yield_per": 1000},
    )
    rebuilt: list[RebuiltStatement] = []
    missing = dict(month.names)
    for each in stored:
        owner = Owner(each.account_id, each.tenant_id)
        names = missing.pop(owner, None)
        again = names and render(_renderer(each.body), names, period, row.sealed_at, month.of(owner))
        sha256 = sha256_hex(again) if again else None
        rebuilt.append(RebuiltStatement(each.id, each.account, each.tenant, each.sha256, sha256))
    for owner, names in missing.items():
        body = render(RENDERER, names, period, row.sealed_at, month.of(owner))
        statement_id = Statement.model_validate_json(body).statement_id
        rebuilt.append(RebuiltStatement(statement_id, names.account, names.tenant, None, sha256_hex(body)))
    return tuple(rebuilt)


def reconcile(connection: Connection, only: Period | None = None) -> tuple[Discrepancy, ...]:
    """Everything that does not add up, any time: empty is well.

    Compares the statements' bytes with their hashes, columns and chain; monthly usage with the ledger; statements with
    the ledger; and what accounts were told with their statements. Takes one scan of each month's ledger rows and
    reads each statement once; a month that is given limits the scan to it.

    Args:
        connection: in a transaction that is `repeatable read`, so that an open month is seen at one moment.
        only: the month whose sums to compare; None for all.
    """
    found: list[Discrepancy] = []
    stated = _statements(connection, found)
    for row in period_rows(connection):
        if only not in {None, row.period}:
            continue
        usage = ledger_usage(connection, row.period)
        wrong = differences(connection, usage, monthly_usage(connection, row.period))
        found += [Discrepancy(DiscrepancyKind.MONTHLY_USAGE, f"{row.period}: {each}") for each in wrong]
        if row.state == "closed":
            found += _statement_totals(connection, row.period, stated.get(row.period, {}), usage)
            found += _account_totals(connection, row.period, stated.get(row.period, {}))
    return tuple(found)


def _statements(connection: Connection, found: list[Discrepancy]) -> _Statements:
    """Read every statement in the order of the chain; adds what is wrong with it by itself to `found`."""
    rows = connection.execute(
        text(
            "select s.sequence, cast(s.id as text) as id, s.period, s.kind, s.account_id, a.code as account, s.tenant_id, "
            "t.code as tenant, s.currency, s.usage_cost, s.total_cost, s.body, s.sha256, s.chain "
            "from statements s left join accounts a on a.id = s.account_id left join tenants t on t.id = s.tenant_id "
            "order by s.sequence"
        ),
        execution_options={"yield_per": 1000},
    )
    stated: dict[Period, dict[Owner, _Body | None]] = defaultdict(dict)
    previous, expected = CHAIN_START, 1
    for row in rows:
        found += _broken(row, previous, expected)
        previous, expected = row.chain, row.sequence + 1
        body = _read(row.body)
        found += _unlike_its_bytes(row, body)
        stated[Period.of(row.period)][Owner(row.account_id, row.tenant_id)] = body
    return stated


def _broken(row: Row[Any], previous: str, expected: int) -> Iterator[Discrepancy]:
    """What the chain says of one statement (C7)."""
    if row.sequence != expected:
        yield Discrepancy(
            DiscrepancyKind.CHAIN, f"statement {expected} is missing before {row.sequence} ({row.id})"
        )
    elif row.chain != chained(previous, row.sha256):
        yield Discrepancy(DiscrepancyKind.CHAIN, f"the chain breaks at statement {row.sequence} ({row.id})")
    if sha256_hex(bytes(row.body)) != row.sha256:
        yield Discrepancy(
            DiscrepancyKind.HASH, f"the bytes of statement {row.id} are not those that were hashed"
        )


def _unlike_its_bytes(row: Row[Any], body: _Body | None) -> Iterator[Discrepancy]:
    """Columns that are not what the statement's own bytes say."""
    if body is None:
        return
    facts = (row.id, str(Period.of(row.period)), row.kind, row.account, row.tenant, row.currency)
    if (facts, row.usage_cost, row.total_cost) != (body.facts, body.usage.cost, body.total_cost):
        yield Discrepancy(
            DiscrepancyKind.COLUMNS, f"statement {row.id} is listed with other facts than its bytes say"
        )


def _statement_totals(
    connection: Connection,
    period: Period,
    stated: Mapping[Owner, _Body | None],
    usage: Mapping[UsageGroup, UsageSums],
) -> Iterator[Discrepancy]:
    """Statements of a month whose totals are not the ledger's."""
    ledger: dict[Owner, UsageSums] = {}
    for group, sums in usage.items():
        if group.account_id is not None:
            owner = Owner(group.account_id, group.tenant_id)
            ledger[owner] = _added(ledger.get(owner, _NOTHING), sums)
    says = {owner: body.usage if body else None for owner, body in stated.items()}
    wrong = [owner for owner in says.keys() | ledger.keys() if says.get(owner) != ledger.get(owner, _NOTHING)]
    names = owner_names(connection, wrong)
    for owner in sorted(wrong, key=str):
        yield Discrepancy(
            DiscrepancyKind.STATEMENT_TOTAL,
            f"{period}: {names.get(owner, owner)}: the statement says {_spelt(says.get(owner))}, "
            f"the ledger {_spelt(ledger.get(owner, _NOTHING))}",
        )


def _account_totals(
    connection: Connection, period: Period, stated: Mapping[Owner, _Body | None]
) -> Iterator[Discrepancy]:
    """Accounts that were told of another number of statements, or another total, than there is."""
    totals: dict[int, list[Decimal]] = defaultdict(list)
    for owner, body in stated.items():
        totals[owner.account_id].append(body.total_cost if body else Decimal(0))
    events = connection.execute(
        text(
            "select a.id, a.code, o.value from outbox o join accounts a on a.code = o.key "
            "where o.headers ->> 'ce_type' = :type and o.headers ->> 'ce_subject' = a.code || '/' || :period order by a.code"
        ),
        {"type": PERIOD_CLOSED, "period": str(period)},
    ).all()
    for row in events:
        event = orjson.loads(bytes(row.value))
        found = (len(totals[row.id]), sum(totals[row.id], Decimal(0)))
        told = (event["statement_count"], Decimal(event["total_cost"]))
        if found != told:
            yield Discrepancy(
                DiscrepancyKind.ACCOUNT_TOTAL,
                f"{period}: account {row.code} was told of {told[0]} statements over {told[1]}, "
                f"there are {found[0]} over {found[1]}",
            )


_NOTHING = UsageSums(0, 0, Decimal(0), 0, Decimal(0))


def _added(one: UsageSums, other: UsageSums) -> UsageSums:
    return UsageSums(
        one.attempts + other.attempts,
        one.calls + other.calls,
        one.answered_seconds + other.answered_seconds,
        one.billed_seconds + other.billed_seconds,
        one.cost + other.cost,
    )


def _spelt(sums: UsageSums | None) -> str:
    return (
        "nothing" if sums is None else ", ".join(f"{name} {value}" for name, value in sums._asdict().items())
    )


def _read(body: bytes) -> _Body | None:
    """What a statement's bytes say; None where they are not those of a statement."""
    try:
        said = orjson.loads(bytes(body))
        totals = said["totals"]
        usage = UsageSums(
            totals["attempts"],
            totals["calls"],
            Decimal(totals["answered_seconds"]),
            totals["billed_seconds"],
            Decimal(totals["usage_cost"]),
        )
        facts = (said[name] for name in ("statement_id", "period", "kind", "account", "tenant", "currency"))
        return _Body(tuple(facts), usage, Decimal(totals["total_cost"]))
    except (ValueError, KeyError, TypeError, ArithmeticError):
        return None


def _renderer(body: bytes) -> int:
    """Which renderer wrote a statement; the present one where its bytes no longer say."""
    try:
        return int(orjson.loads(bytes(body))["renderer"])
    except (ValueError, KeyError, TypeError):
        return RENDERER

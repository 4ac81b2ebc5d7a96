"""What does a month come to (C3).

Sums, numbers and peak of one owner, laid out as the statement that will never change. All rounding has happened
before: here amounts are only added.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

from rollup.classify import number_class
from rollup.sums import UsageGroup, UsageSums
from rollup.tariffs import Tariffs
from schemas.identity import fact_id
from schemas.money import ledger_cost
from schemas.periods import Period
from schemas.statements import NumbersHeld, Statement, StatementLine, StatementTotals

CHAIN_START: Final = "0" * 64
_SECONDS: Final = Decimal("0.000001")
_MICROSECOND: Final = timedelta(microseconds=1)


class Owner(NamedTuple):
    """Whose usage: a tenant's, or with `tenant_id` None what an account could not be told the tenant of."""

    account_id: int
    tenant_id: int | None

    @property
    def code(self) -> int:
        """The owner in one number: a tenant's id, or an account's below zero."""
        return -self.account_id if self.tenant_id is None else self.tenant_id


@dataclass(frozen=True, slots=True)
class OwnerNames:
    """An owner as the statement names it: the account's code, the tenant's Account ID and name."""

    account: str
    currency: str
    tenant: str | None
    tenant_name: str | None


@dataclass(frozen=True, slots=True)
class OwnerMonth:
    """Everything a statement is made of, for one owner."""

    usage: Sequence[tuple[UsageGroup, UsageSums]]
    numbers: Sequence[NumbersHeld]
    peak_concurrent_channels: int


@dataclass(frozen=True, slots=True)
class HeldNumbers:
    """Numbers held at a month's last instant, by owner; `without_tariff` counts those that cost nothing for want of one."""

    by_owner: Mapping[Owner, Sequence[NumbersHeld]]
    without_tariff: Mapping[tuple[int, str], int]


class UnknownRendererError(ValueError):
    """A statement that only a later version of the program can write again."""


def statement(names: OwnerNames, period: Period, as_of: datetime, month: OwnerMonth) -> Statement:
    """One owner's statement of one month: the same facts give the same bytes.

    Raises:
        ValueError: usage in a currency that is not the account's.
    """
    foreign = {group.currency for group, _ in month.usage} - {names.currency}
    if foreign:
        raise ValueError(f"usage of account {names.account} in {sorted(foreign)}, not {names.currency}")
    lines = sorted(
        (_line(period, group, sums) for group, sums in month.usage),
        key=lambda line: (line.late, line.usage_period, line.usage_class),
    )
    numbers = tuple(sorted(month.numbers, key=lambda held: held.usage_class))
    return Statement(
        statement_id=str(statement_id(names.account, names.tenant, period)),
        kind="unassigned" if names.tenant is None else "tenant",
        account=names.account,
        tenant=names.tenant,
        tenant_name=names.tenant_name,
        period=str(period),
        currency=names.currency,
        lines=tuple(lines),
        numbers=numbers,
        peak_concurrent_channels=month.peak_concurrent_channels,
        totals=_totals(lines, numbers),
        as_of=as_of,
    )


def render(renderer: int, names: OwnerNames, period: Period, as_of: datetime, month: OwnerMonth) -> bytes:
    """A statement's bytes as a given version of the program wrote them (C6).

    Raises:
        UnknownRendererError: a later version wrote it.
    """
    if renderer not in RENDERERS:
        raise UnknownRendererError(
            f"a statement was written by renderer {renderer}, which this version does not know"
        )
    return RENDERERS[renderer](names, period, as_of, month)


def statement_id(account: str, tenant: str | None, period: Period) -> UUID:
    """A statement's id, told by whose month it is: closing twice makes it once."""
    return fact_id("statement", account, tenant, str(period))


def chained(previous: str, sha256: str) -> str:
    """The next link of the chain of statements: taking one out or changing one breaks every later link (C7)."""
    return hashlib.sha256(f"{previous}{sha256}".encode("ascii")).hexdigest()


def numbers_held(
    assigned: Iterable[tuple[int, int | None, str]], tariffs: Tariffs, period: Period
) -> HeldNumbers:
    """Count and cost of the numbers held at a month's last instant.

    Args:
        assigned: account id, tenant id and number (E.164) of each assignment in force then.
        tariffs: with unit `month` for `number_local` and `number_toll_free`, called prefix allowed.
        period: the month.
    """
    at = period.ends_at - _MICROSECOND
    held: dict[Owner, dict[str, tuple[int, Decimal]]] = defaultdict(dict)
    unpriced: dict[tuple[int, str], int] = defaultdict(int)
    for account_id, tenant_id, number in assigned:
        kind = number_class(number)
        tariff = tariffs.in_force(account_id, kind, number.removeprefix("+"), at)
        priced = tariff is not None and tariff.unit == "month"
        if not priced:
            unpriced[account_id, kind] += 1
        count, cost = held[Owner(account_id, tenant_id)].get(kind, (0, Decimal(0)))
        held[Owner(account_id, tenant_id)][kind] = (
            count + 1,
            cost + tariff.cost if tariff is not None and priced else cost,
        )
    by_owner = {
        owner: [
            NumbersHeld(usage_class=kind, count=count, cost=ledger_cost(cost))
            for kind, (count, cost) in kinds.items()
        ]
        for owner, kinds in held.items()
    }
    return HeldNumbers(by_owner, dict(unpriced))


def _line(period: Period, group: UsageGroup, sums: UsageSums) -> StatementLine:
    return StatementLine(
        usage_class=group.usage_class,
        usage_period=str(Period.of(group.usage_period)),
        late=group.usage_period != period.first_day,
        attempts=sums.attempts,
        calls=sums.calls,
        answered_seconds=sums.answered_seconds.quantize(_SECONDS),
        billed_seconds=sums.billed_seconds,
        cost=ledger_cost(sums.cost),
    )


def _totals(lines: Sequence[StatementLine], numbers: Sequence[NumbersHeld]) -> StatementTotals:
    usage_cost = sum((line.cost for line in lines), Decimal("0.000000"))
    number_cost = sum((held.cost for held in numbers), Decimal("0.000000"))
    return StatementTotals(
        attempts=sum(line.attempts for line in lines),
        calls=sum(line.calls for line in lines),
        answered_seconds=sum((line.answered_seconds for line in lines), Decimal("0.000000")),
        billed_seconds=sum(line.billed_seconds for line in lines),
        usage_cost=usage_cost,
        number_cost=number_cost,
        total_cost=usage_cost + number_cost,
    )


def _first(names: OwnerNames, period: Period, as_of: datetime, month: OwnerMonth) -> bytes:
    return statement(names, period, as_of, month).canonical_bytes()


# By `Statement.renderer`. What a month was closed with is kept here for ever, so that it can be written again: whoever
# changes what a statement says adds a renderer and leaves those before it as they are.
RENDERERS: Final[dict[int, Callable[[OwnerNames, Period, datetime, OwnerMonth], bytes]]] = {1: _first}

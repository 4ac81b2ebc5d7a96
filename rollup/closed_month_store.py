"""What a closed month came to: for the operator who closed it, and for whoever asks again."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, text

from schemas.periods import Period


class AccountMonth(NamedTuple):
    """What one account's statements of a month come to."""

    account: str
    currency: str
    statement_count: int
    usage_cost: Decimal
    total_cost: Decimal


class UnownedUsage(NamedTuple):
    """Usage of nobody's numbers and addresses: in no statement, shown to the carrier (A6)."""

    usage_class: str
    currency: str
    attempts: int
    calls: int
    answered_seconds: Decimal
    cost: Decimal


class UnpricedNumbers(NamedTuple):
    """Numbers that cost nothing because the account has no tariff for them."""

    account: str
    usage_class: str
    numbers: int


@dataclass(frozen=True, slots=True)
class ClosedMonth:
    """What a close did. `unpriced_numbers` is known only to the close that made the statements."""

    period: Period
    accounts: tuple[AccountMonth, ...]
    unowned: tuple[UnownedUsage, ...]
    unpriced_numbers: tuple[UnpricedNumbers, ...] = ()

    @property
    def statement_count(self) -> int:
        """How many statements the month has."""
        return sum(account.statement_count for account in self.accounts)


def closed_month(
    connection: Connection, period: Period, unpriced: tuple[UnpricedNumbers, ...] = ()
) -> ClosedMonth:
    """What a closed month came to."""
    accounts = connection.execute(
        text(
            "select a.code, s.currency, count(*), sum(s.usage_cost), sum(s.total_cost) from statements s "
            "join accounts a on a.id = s.account_id where s.period = :period "
            "group by a.code, s.currency order by a.code"
        ),
        {"period": period.first_day},
    )
    unowned = connection.execute(
        text(
            "select usage_class, currency, sum(attempts)::bigint, sum(calls)::bigint, sum(answered_seconds), sum(cost) "
            "from monthly_usage where period = :period and account_id is null group by 1, 2 order by 1, 2"
        ),
        {"period": period.first_day},
    )
    return ClosedMonth(
        period,
        tuple(AccountMonth(*row) for row in accounts),
        tuple(UnownedUsage(*row) for row in unowned),
        unpriced,
    )

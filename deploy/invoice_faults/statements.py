"""The campaign's statements, and what each must come to, told in the simplest way there is.

What is expected is added up here with fractions from the same intentions that the statement and the profile are written
from. Nothing of the product's own arithmetic takes part.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import Any, Final, Literal

from schemas.identity import fact_id
from schemas.periods import Period
from schemas.statements import Statement, StatementLine, StatementTotals

ACCOUNTS: Final = tuple(f"reseller-{number}" for number in range(1, 9))
MONTHS: Final = ("2026-04", "2026-05")
CLOSED_AT: Final = datetime(2026, 6, 3, 1, tzinfo=UTC)  # both months: April's close was late
TAX_PERCENT: Final = 10  # the sandbox's
FEE: Final = Decimal("5.00")
SENDING_HOUR: Final = 12

Fate = Literal["sent", "nothing_to_bill", "not_billed"]


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant; `products` as a billing profile has them, none for a tenant without a profile."""

    account: str
    code: str
    billing_day: int
    auto_charge: bool
    taxes: bool
    terms_days: int
    products: tuple[dict[str, Any], ...]

    @property
    def email(self) -> str:
        """Where its invoices go."""
        return f"billing@{self.code}"


@dataclass(frozen=True, slots=True)
class Expected:
    """What must become of a statement: `lines` maps the line's key to its amount in cents, before tax."""

    statement_id: str
    tenant: Tenant
    fate: Fate
    lines: dict[str, int]
    fee: Decimal | None
    not_before: datetime

    @property
    def stripe_account(self) -> str:
        """Where its invoice belongs."""
        return f"acct_{self.tenant.account.replace('-', '')}"

    @property
    def total(self) -> int:
        """With tax, in cents: a half cent goes up."""
        subtotal = sum(self.lines.values())
        return subtotal + (_half_up(Fraction(subtotal * TAX_PERCENT, 100)) if self.tenant.taxes else 0)


@dataclass(frozen=True, slots=True)
class Made:
    """A statement, and what must become of it."""

    statement: Statement
    expected: Expected


def make(count: int, seed: int, accounts: Sequence[str] = ACCOUNTS) -> list[Made]:
    """So many statements, each time the same for one seed: about a third of the tenants have two, of two months."""
    dice = random.Random(seed)  # noqa: S311 (repeatable, no secrets)
    made = (one for serial in range(count) for one in _tenants_statements(serial, accounts, dice))
    return [next(made) for _ in range(count)]


def _tenants_statements(serial: int, accounts: Sequence[str], dice: random.Random) -> Iterator[Made]:
    tenant = _tenant(serial, accounts, dice)
    for month in MONTHS if dice.random() < 0.35 else MONTHS[-1:]:
        yield _statement(tenant, month, dice)


def _tenant(serial: int, accounts: Sequence[str], dice: random.Random) -> Tenant:
    taxes = dice.random() < 0.2
    offers: list[dict[str, Any]] = [
        {"kind": "minutes", "usage_classes": ["outbound_conversational"], "price": _price(dice)},
        {"kind": "minutes", "usage_classes": ["inbound_conversational"], "price": _price(dice)},
        {"kind": "service_events", "usage_class": "caller_id_lookup", "price": _price(dice)},
        {"kind": "peak_channels", "price": f"{dice.randint(0, 2500) / 100:.2f}"},
        {"kind": "flat", "price": f"{dice.randint(1, 9999) / 100:.2f}", "quantity": str(dice.randint(1, 4))},
    ]
    chosen = dice.sample(offers, dice.randint(1, len(offers))) if dice.random() < 0.95 else []
    return Tenant(
        account=dice.choice(accounts),
        code=f"t{serial}.example.com",
        billing_day=dice.randint(1, 31),
        auto_charge=dice.random() < 0.2,
        taxes=taxes,
        terms_days=dice.choice((0, 14, 30)),
        products=tuple(_named(offer, taxes=taxes) for offer in chosen),
    )


def _named(offer: dict[str, Any], *, taxes: bool) -> dict[str, Any]:
    code = {"tax_code": "txcd_20060044"} if taxes else {}
    return {**offer, "description": str(offer["kind"]), **code}


def _price(dice: random.Random) -> str:
    """Up to seven decimals, so that most lines are rounded."""
    return f"{dice.randint(1, 400_000) / 10**7:.7f}"


def _statement(tenant: Tenant, month: str, dice: random.Random) -> Made:
    idle = dice.random() < 0.05
    used = {
        name: 0 if idle else dice.choice((0, 1, 29, 30, 31, 59, 60, dice.randint(61, 500_000)))
        for name in ("outbound_conversational", "inbound_conversational")
    }
    lookups, peak = (0, 0) if idle else (dice.randint(0, 4000), dice.randint(0, 40))
    cost = dice.choice((Decimal(0), Decimal("4.999999"), Decimal(5), Decimal(dice.randint(0, 90_000)) / 100))
    lines = [
        *(_line(name, month, seconds=seconds) for name, seconds in used.items()),
        _line("caller_id_lookup", month, attempts=lookups, cost=cost),
    ]
    statement_id = str(fact_id("statement", tenant.account, tenant.code, month))
    amounts = {
        f"{position}.{month}": cents
        for position, product in enumerate(tenant.products, start=1)
        if (cents := _cents(product, used, lookups, peak))
    }
    fate: Fate = "sent" if amounts else "nothing_to_bill" if tenant.products else "not_billed"
    expected = Expected(
        statement_id=statement_id,
        tenant=tenant,
        fate=fate,
        lines=amounts,
        fee=FEE if fate == "sent" and cost < FEE else None,
        not_before=_billing_instant(tenant.billing_day),
    )
    return Made(_written(statement_id, tenant, month, lines, peak), expected)


def _cents(product: dict[str, Any], used: dict[str, int], lookups: int, peak: int) -> int:
    price = Fraction(product["price"])
    match product["kind"]:
        case "minutes":
            dollars = used[product["usage_classes"][0]] * price / 60
        case "service_events":
            dollars = lookups * price
        case "peak_channels":
            dollars = peak * price
        case _:
            dollars = Fraction(product["quantity"]) * price
    return _half_up(dollars * 100)


def _half_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


def _billing_instant(billing_day: int) -> datetime:
    """Noon of that day in June, which has 30; a day that is past means at once."""
    noon = datetime(2026, 6, min(billing_day, 30), SENDING_HOUR, tzinfo=UTC)
    return max(noon, CLOSED_AT)


def _line(
    name: str, month: str, *, seconds: int = 0, attempts: int = 1, cost: Decimal = Decimal(0)
) -> StatementLine:
    return StatementLine(
        usage_class=name,
        usage_period=month,
        late=False,
        attempts=attempts,
        calls=attempts,
        answered_seconds=Decimal(seconds),
        billed_seconds=seconds,
        cost=cost,
    )


def _written(
    statement_id: str, tenant: Tenant, month: str, lines: list[StatementLine], peak: int
) -> Statement:
    cost = sum((line.cost for line in lines), Decimal(0))
    return Statement(
        statement_id=statement_id,
        kind="tenant",
        account=tenant.account,
        tenant=tenant.code,
        tenant_name=tenant.code,
        period=month,
        currency="USD",
        lines=tuple(lines),
        numbers=(),
        peak_concurrent_channels=peak,
        totals=StatementTotals(
            attempts=sum(line.attempts for line in lines),
            calls=sum(line.calls for line in lines),
            answered_seconds=sum((line.answered_seconds for line in lines), Decimal(0)),
            billed_seconds=sum(line.billed_seconds for line in lines),
            usage_cost=cost,
            number_cost=Decimal(0),
            total_cost=cost,
        ),
        as_of=Period.parse(month).ends_at + timedelta(hours=48),
    )

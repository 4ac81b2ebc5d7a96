"""What a statement costs its tenant, line by line (I3).

Each line is one product of the profile times one quantity of the statement, for one month. It is rounded half-up
once, to the currency's smallest unit; the text carries quantity, price and month, so that anyone can check it with a
calculator. Usage of an earlier month that came late stands on a line of its own and consumes no allowance. A line that
comes to nothing (no usage, all of it included, or a price of 0) is left out: nothing is asked for it, and the
statement shows the usage anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Final, Literal, assert_never

from pydantic import BaseModel, ConfigDict

from invoicing.profile import (
    CostPlus,
    FlatRecurring,
    Minutes,
    Numbers,
    PeakChannels,
    Product,
    ServiceEvents,
)
from schemas.money import minor_units
from schemas.periods import Period
from schemas.statements import DecimalText, Statement, StatementLine

Unit = Literal["channel", "second", "event", "number", "item", "cost"]

_DIGITS: Final = 60  # far more than any product of a quantity and a price has: only the last rounding rounds
_SHOWN_PLACES: Final = Decimal("1e-12")
_SECONDS_PER_MINUTE: Final = 60
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


class InvoiceLine(BaseModel):
    """One line of an invoice: `amount_minor` (smallest units of the currency) = `quantity` times `unit_price`.

    Rounded half-up once. Where `unit` is `second` the price is a minute's; where it is `cost` the price is the factor on the cost.
    `key` tells the line apart within its invoice; `usage_classes` are the statement's lines it was made from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    description: str
    amount_minor: int
    quantity: DecimalText
    unit: Unit
    unit_price: DecimalText
    usage_period: str
    late: bool
    usage_classes: tuple[str, ...]
    tax_code: str | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """One quantity of one product in one month, with its price and how they read on the invoice."""

    usage_period: str
    quantity: Decimal
    unit: Unit
    unit_price: Decimal
    usage_classes: tuple[str, ...]
    figures: str


def product_lines(statement: Statement, products: Iterable[Product]) -> tuple[InvoiceLine, ...]:
    """What products come to on one statement, in their order, late usage after a product's own; none: nothing to bill."""
    return tuple(
        line
        for position, product in enumerate(products, start=1)
        for part in _parts(product, statement)
        if (line := _product_line(position, product, part, statement)).amount_minor
    )


def subtotal_minor(lines: Iterable[InvoiceLine]) -> int:
    """What the lines come to, in the currency's smallest units."""
    return sum(line.amount_minor for line in lines)


def charge_minor(quantity: Decimal, unit: Unit, unit_price: Decimal, currency: str) -> int:
    """Quantity times price in the currency's smallest units, rounded half-up, once."""
    with localcontext(prec=_DIGITS):
        return minor_units(exact_charge(quantity, unit, unit_price), currency)


def exact_charge(quantity: Decimal, unit: Unit, unit_price: Decimal) -> Decimal:
    """Quantity times price before it is rounded (a third of a cent: to 60 digits)."""
    with localcontext(prec=_DIGITS):
        charge = quantity * unit_price
        return charge / _SECONDS_PER_MINUTE if unit == "second" else charge


def shown_exact(exact: Decimal) -> str:
    """An amount before rounding as people check it: to 12 places, no trailing zeros."""
    with localcontext(prec=_DIGITS):
        return f"{exact.quantize(_SHOWN_PLACES).normalize():f}"


def month_text(usage_period: str) -> str:
    """`2026-10` as people read it: `October 2026 (UTC)`."""
    period = Period.parse(usage_period)
    return f"{_MONTHS[period.month - 1]} {period.year} (UTC)"


def _product_line(position: int, product: Product, part: _Part, statement: Statement) -> InvoiceLine:
    late = part.usage_period != statement.period
    month = f"late usage of {month_text(part.usage_period)}" if late else month_text(part.usage_period)
    return InvoiceLine(
        key=f"{position}.{part.usage_period}",
        description=f"{product.description}: {part.figures}, {month}",
        amount_minor=charge_minor(part.quantity, part.unit, part.unit_price, statement.currency),
        quantity=part.quantity,
        unit=part.unit,
        unit_price=part.unit_price,
        usage_period=part.usage_period,
        late=late,
        usage_classes=part.usage_classes,
        tax_code=product.tax_code,
    )


def _parts(product: Product, statement: Statement) -> Iterable[_Part]:
    """What a product counts on the statement, month by month."""
    match product:
        case PeakChannels():
            return _peak_channels(product, statement)
        case Minutes():
            return _minutes(product, statement)
        case ServiceEvents():
            return _service_events(product, statement)
        case Numbers():
            return _numbers(product, statement)
        case FlatRecurring():
            return _flat(product, statement)
        case CostPlus():
            return _cost_plus(product, statement)
        case _:
            assert_never(product)


def _peak_channels(product: PeakChannels, statement: Statement) -> Iterator[_Part]:
    peak = Decimal(statement.peak_concurrent_channels)
    figures = _times(peak, "channel", product.price, statement.currency)
    yield _Part(statement.period, peak, "channel", product.price, (), figures)


def _minutes(product: Minutes, statement: Statement) -> Iterator[_Part]:
    rate = f"at {statement.currency} {_figure(product.price)} a minute"
    for month, seconds in _by_month(statement, product.usage_classes, _measured_by(product.measure)):
        included = product.included_minutes if month == statement.period else Decimal(0)
        billable = max(Decimal(0), seconds - included * _SECONDS_PER_MINUTE)
        less = f" less {_figure(included)} min included, {_duration(billable)}" if included else ""
        figures = f"{_duration(seconds)}{less} {rate}"
        yield _Part(month, billable, "second", product.price, product.usage_classes, figures)


def _service_events(product: ServiceEvents, statement: Statement) -> Iterator[_Part]:
    classes = (product.usage_class,)
    for month, events in _by_month(statement, classes, _counted_by(product.count)):
        figures = _times(events, "event", product.price, statement.currency)
        yield _Part(month, events, "event", product.price, classes, figures)


def _numbers(product: Numbers, statement: Statement) -> Iterator[_Part]:
    count = Decimal(sum(held.count for held in statement.numbers if held.usage_class == product.usage_class))
    figures = _times(count, "number", product.price, statement.currency)
    yield _Part(statement.period, count, "number", product.price, (product.usage_class,), figures)


def _flat(product: FlatRecurring, statement: Statement) -> Iterator[_Part]:
    figures = _times(product.quantity, "", product.price, statement.currency)
    yield _Part(statement.period, product.quantity, "item", product.price, (), figures)


def _cost_plus(product: CostPlus, statement: Statement) -> Iterator[_Part]:
    factor = 1 + product.markup_percent / 100
    markup = f"plus {_figure(product.markup_percent)} %"
    for month, cost in _costs_by_month(statement, product.usage_classes):
        figures = f"cost {statement.currency} {_figure(cost)} {markup}"
        yield _Part(month, cost, "cost", factor, product.usage_classes, figures)


def _by_month(
    statement: Statement, classes: tuple[str, ...], measure: Callable[[StatementLine], Decimal]
) -> list[tuple[str, Decimal]]:
    """The named classes' usage (none named: all) by the month it happened in; the statement's own month first."""
    sums: dict[str, Decimal] = {statement.period: Decimal(0)}
    for line in statement.lines:
        if not classes or line.usage_class in classes:
            sums[line.usage_period] = sums.get(line.usage_period, Decimal(0)) + measure(line)
    return sorted(sums.items(), key=lambda month: (month[0] != statement.period, month[0]))


def _costs_by_month(statement: Statement, classes: tuple[str, ...]) -> list[tuple[str, Decimal]]:
    numbers = sum(
        (held.cost for held in statement.numbers if not classes or held.usage_class in classes), Decimal(0)
    )
    return [
        (month, cost + numbers if month == statement.period else cost)
        for month, cost in _by_month(statement, classes, lambda line: line.cost)
    ]


def _measured_by(measure: Literal["billed", "answered"]) -> Callable[[StatementLine], Decimal]:
    if measure == "billed":
        return lambda line: Decimal(line.billed_seconds)
    return lambda line: line.answered_seconds


def _counted_by(count: Literal["attempts", "calls"]) -> Callable[[StatementLine], Decimal]:
    return lambda line: Decimal(line.attempts if count == "attempts" else line.calls)


def _times(quantity: Decimal, thing: str, price: Decimal, currency: str) -> str:
    plural = f" {thing}{'' if quantity == 1 else 's'}" if thing else ""
    return f"{_figure(quantity)}{plural} at {currency} {_figure(price)}"


def _duration(seconds: Decimal) -> str:
    minutes, rest = divmod(seconds, _SECONDS_PER_MINUTE)
    return f"{_figure(minutes)} min {_figure(rest)} s" if rest else f"{_figure(minutes)} min"


def _figure(number: Decimal) -> str:
    """A number as people write it: thousands set off, no trailing zeros."""
    return f"{number.normalize():,f}"

"""What to bill a tenant, and when.

A billing profile lists the products an account sells to one tenant, their prices, the day of the month, and how the
invoice is to be paid (I1, I3, I4). It is parsed once, frozen, and stored as JSON version by version: an invoice is
made from the version that was in force when its statement was generated. Prices are charges: what the account asks
of its tenant, never what the carrier asks of the account.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from schemas.money import plain

PRICE_PLACES_MAX: Final = 12  # what Stripe, and a reseller's price list, can hold
PRICE_MAX: Final = Decimal(1_000_000)
PRODUCTS_MAX: Final = 200  # leaves room for late lines under Stripe's 250


def _decimal_from_text(value: object) -> Decimal:
    if isinstance(value, bool | float):
        raise ValueError(f'write the number as text, "{value}": a binary fraction is not exact')  # noqa: TRY004 (pydantic reports ValueError)
    try:
        return Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a decimal number") from None


def _exact(value: Decimal) -> Decimal:
    if value < 0:
        raise ValueError(f"{plain(value)} is negative; prices and quantities start at 0")
    if value > PRICE_MAX:
        raise ValueError(f"{plain(value)} is over the limit of {PRICE_MAX}")
    places = -int(value.as_tuple().exponent)
    if places > PRICE_PLACES_MAX:
        raise ValueError(f"{plain(value)} has {places} decimals; at most {PRICE_PLACES_MAX} are allowed")
    return value


ExactDecimal = Annotated[
    Decimal,
    BeforeValidator(_decimal_from_text),
    AfterValidator(_exact),
    PlainSerializer(plain, return_type=str),
]
Price = ExactDecimal
UsageClass = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
Description = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class _Product(BaseModel):
    """What every product has: its name on the invoice, and a Stripe tax code where the tenant is taxed (I4)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: Description
    tax_code: Annotated[str, Field(pattern=r"^txcd_[0-9]{8}$")] | None = None


class PeakChannels(_Product):
    """The most channels in use at one time in the month, at a price each."""

    kind: Literal["peak_channels"]
    price: Price


class Minutes(_Product):
    """Minutes of the named usage classes together, after the included ones.

    `measure`: `billed` seconds (after the carrier's increments) or `answered` seconds (answer to end). Late usage
    is billed on its own line and consumes no included minutes.
    """

    kind: Literal["minutes"]
    usage_classes: Annotated[tuple[UsageClass, ...], Field(min_length=1)]
    price: Price
    included_minutes: ExactDecimal = Decimal(0)
    measure: Literal["billed", "answered"] = "billed"

    @model_validator(mode="after")
    def _classes_differ(self) -> Minutes:
        if len(set(self.usage_classes)) < len(self.usage_classes):
            raise ValueError("a usage class is named twice; its minutes would be billed twice")
        return self


class ServiceEvents(_Product):
    """Events of one usage class, at a price each. `count`: every attempt, or only the answered calls."""

    kind: Literal["service_events"]
    usage_class: UsageClass
    price: Price
    count: Literal["attempts", "calls"] = "attempts"


class Numbers(_Product):
    """Phone numbers held at the month's last instant, at a price each, never prorated."""

    kind: Literal["numbers"]
    usage_class: Literal["number_local", "number_toll_free"]
    price: Price


class FlatRecurring(_Product):
    """A sum that comes every month: quantity times price."""

    kind: Literal["flat"]
    price: Price
    quantity: ExactDecimal = Decimal(1)


class CostPlus(_Product):
    """What the carrier charges the account, plus a markup in percent; of some classes, or (none named) of everything."""

    kind: Literal["cost_plus"]
    markup_percent: ExactDecimal
    usage_classes: tuple[UsageClass, ...] = ()


Product = Annotated[
    PeakChannels | Minutes | ServiceEvents | Numbers | FlatRecurring | CostPlus, Field(discriminator="kind")
]


class BillingProfile(BaseModel):
    """What to bill a tenant, and when.

    `billing_day` 29 to 31 means the last day of shorter months (I1). `auto_charge`: take the money from the customer's
    payment method if there is one; else, and without it, the invoice is sent and due `terms_days` after its day (I4).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    billing_day: Annotated[int, Field(ge=1, le=31)]
    auto_charge: bool = False
    taxes: bool = False
    terms_days: Annotated[int, Field(ge=0, le=365)] = 30
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    products: Annotated[tuple[Product, ...], Field(min_length=1, max_length=PRODUCTS_MAX)]

    @model_validator(mode="after")
    def _taxed_products_have_codes(self) -> BillingProfile:
        bare = [product.description for product in self.products if self.taxes and product.tax_code is None]
        if bare:
            raise ValueError(f"taxes are on, so each product needs a tax_code; missing: {', '.join(bare)}")
        return self

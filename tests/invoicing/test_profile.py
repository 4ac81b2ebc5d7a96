"""What a billing profile may say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from invoicing.profile import BillingProfile
from tests.invoicing.builders import OUTBOUND, profile


def test_a_profile_reads_back_from_its_own_json_with_prices_as_text() -> None:
    definition = profile({**OUTBOUND, "price": "0.000000000001"})
    assert '"price":"0.000000000001"' in definition.model_dump_json()
    assert BillingProfile.model_validate_json(definition.model_dump_json()) == definition


@pytest.mark.parametrize(
    ("price", "why"),
    [
        ("0.0000000000001", "has 13 decimals; at most 12 are allowed"),
        (0.01, "write the number as text"),
        ("-1", "is negative"),
        ("free", "is not a decimal number"),
        ("NaN", "should be a finite number"),
        ("1000000.01", "is over the limit"),
    ],
)
def test_a_price_that_is_not_exact_and_payable_is_refused_with_the_reason(price: object, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        profile({**OUTBOUND, "price": price})


@pytest.mark.parametrize(
    "fields", [{"billing_day": 0}, {"billing_day": 32}, {"terms_days": -1}, {"colour": "red"}]
)
def test_fields_out_of_range_and_unknown_ones_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        profile(**fields)


def test_a_class_named_twice_in_a_product_is_refused() -> None:
    with pytest.raises(ValidationError, match="billed twice"):
        profile({**OUTBOUND, "price": "1", "usage_classes": ["a", "a"]})


def test_taxes_need_a_tax_code_on_each_product() -> None:
    with pytest.raises(ValidationError, match="missing: Outbound minutes"):
        profile({**OUTBOUND, "price": "1"}, taxes=True)

"""Profiles as people write them: taken as written or refused with the place, never read as something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from invoicing.profile import BillingProfile
from pipeline.cli.billing import profile_apply
from pipeline.cli.files import read_file
from pipeline.cli.output import Refused
from tests.invoicing.builders import OUTBOUND, profile

HEAD = "billing_day: 20\ncurrency: USD\n"
FLAT = "products: [{{kind: flat, description: Platform, price: {price}}}]\n"


def read(folder: Path, content: str) -> BillingProfile:
    file = folder / "profile.yaml"
    file.write_text(content)
    return read_file(file, BillingProfile, "billing profile")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "must name fields, such as `billing_day"),
        ("- 1\n", "must name fields"),
        ("a: [", "cannot be read"),
        ("? [a]\n: 1\n", "cannot be read"),
        (HEAD + "billing_day: 21\n" + FLAT.format(price="'1'"), "the field 'billing_day' is there twice"),
        (HEAD + FLAT.format(price="0.0125"), 'write the number as text, "0.0125"'),
        (HEAD + FLAT.format(price="1:30"), "'1:30' is not a decimal number"),
        (HEAD + FLAT.format(price="0x10"), "'0x10' is not a decimal number"),
        (HEAD + FLAT.format(price="2026-13-45"), "'2026-13-45' is not a decimal number"),
        (HEAD + FLAT.format(price="'0.0000000000001'"), "has 13 decimals; at most 12"),
        (HEAD + "products: [{kind: magic}]\n", "products.0: Input tag 'magic'"),
        (HEAD + "colour: red\n" + FLAT.format(price="'1'"), "colour: Extra inputs"),
    ],
)
def test_what_is_not_a_profile_is_refused_with_the_place(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(Refused, match=r"profile\.yaml") as refused:
        read(tmp_path, content)
    assert said in str(refused.value)
    assert "at least 1 item" not in str(refused.value), "a fault within a list is told once"


def test_no_products_at_all_are_said_to_be_too_few(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="products: Tuple should have at least 1 item"):
        read(tmp_path, HEAD + "products: []\n")


def test_a_whole_price_may_be_a_number_and_010_is_ten(tmp_path: Path) -> None:
    for written, price in (("25", 25), ("010", 10), ("'0.0125'", "0.0125")):
        made = read(tmp_path, HEAD + FLAT.format(price=written))
        assert made == profile({"kind": "flat", "description": "Platform", "price": str(price)})


def test_json_is_yaml_too(tmp_path: Path) -> None:
    definition = profile({**OUTBOUND, "price": "0.012"})
    assert read(tmp_path, json.dumps(json.loads(definition.model_dump_json()), indent=1)) == definition


def test_the_example_that_the_command_teaches_is_a_profile_with_every_product(tmp_path: Path) -> None:
    taught = str(profile_apply.__doc__).split("\b\n")[1].split("\n\n")[0]
    example = read(tmp_path, "\n".join(line.removeprefix("    ") for line in taught.splitlines()))
    kinds = {product.kind for product in example.products}
    assert kinds == {"flat", "minutes", "service_events", "numbers", "peak_channels", "cost_plus"}

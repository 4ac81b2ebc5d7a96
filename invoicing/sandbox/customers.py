"""One Stripe account's customers, and what Stripe keeps of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from invoicing.sandbox.forms import Form, group, text, texts
from invoicing.sandbox.refusal import missing
from invoicing.sandbox.rules import Thing, is_located, metadata_of, refuse_location


class Customers:
    """The customers of one `Stripe-Account`; `timestamp` gives the sandbox's Unix seconds."""

    def __init__(self, account: str, timestamp: Callable[[], int]) -> None:
        self.account = account
        self.customers: dict[str, Thing] = {}
        self._timestamp = timestamp
        self._numbers = count(1)

    def create_customer(self, form: Form) -> Thing:
        """A new customer."""
        customer: Thing = {
            "id": self._new_id("cus"),
            "object": "customer",
            "created": self._timestamp(),
            "address": None,
            "balance": 0,
            "default_source": None,
            "invoice_settings": {"default_payment_method": None},
            "livemode": False,
            "metadata": {},
            **dict.fromkeys(("description", "name", "email", "phone")),
        }
        refuse_location(form)
        self.customers[customer["id"]] = customer
        return self._change_customer(customer, form)

    def update_customer(self, customer_id: str, form: Form) -> Thing:
        """Change a customer's fields."""
        customer = self._customer(customer_id, "id", 404)
        refuse_location(form, customer["address"])
        return self._change_customer(customer, form)

    def customer(self, customer_id: str) -> Thing:
        """A customer, or what is left of a deleted one."""
        found = self.customers.get(customer_id)
        if found is None:
            raise missing("customer", customer_id)
        return found

    def delete_customer(self, customer_id: str) -> Thing:
        """Delete a customer."""
        self._customer(customer_id, "id", 404)
        self.customers[customer_id] = {"id": customer_id, "object": "customer", "deleted": True}
        return self.customers[customer_id]

    def list_customers(self, form: Form) -> list[Thing]:
        """Customers, newest first."""
        email = text(form, "email")
        alive = [each for each in self.customers.values() if not each.get("deleted")]
        return [each for each in reversed(alive) if email is None or each["email"] == email]

    def _customer(self, customer_id: str, param: str, status: int) -> Thing:
        found = self.customers.get(customer_id)
        if found is None or found.get("deleted"):
            raise missing("customer", customer_id, param, status)
        return found

    def _change_customer(self, customer: Thing, form: Form) -> Thing:
        for name in ("description", "name", "email", "phone"):
            if name in form:
                customer[name] = text(form, name) or None
        if "address" in form:
            customer["address"] = texts(form, "address")
        located = is_located(customer["address"] or {})
        customer["tax"] = {"automatic_tax": "supported" if located else "unrecognized_location"}
        if "invoice_settings" in form:
            method = text(group(form, "invoice_settings"), "default_payment_method")
            customer["invoice_settings"]["default_payment_method"] = method or None
        customer["metadata"] = {**customer["metadata"], **metadata_of(form)}
        return customer

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}_{self.account.removeprefix('acct_')}{next(self._numbers):08d}"

"""One Stripe account's customers, invoices and items, and the rules Stripe keeps over them.

Objects are plain dicts in the shape of Stripe's JSON. Times are Unix seconds of the sandbox's clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Final

from invoicing.sandbox.forms import Form, boolean, group, integer, text, texts
from invoicing.sandbox.refusal import invalid, missing
from invoicing.sandbox.rules import Thing, due_date_of, is_chargeable, line_of, metadata_of, refuse_item

FUTURE_SECONDS_MAX: Final = 5 * 366 * 86_400
MINIMUM_CHARGE: Final = 50
TAX_PERCENT: Final = 10  # any rate will do: it only has to be seen
ADVANCE_SECONDS: Final = 3_600  # an advancing draft without a time of its own


class Books:
    """The state behind one `Stripe-Account`. Not thread-safe: the server calls it under its lock."""

    def __init__(self, account: str, timestamp: Callable[[], int]) -> None:
        self.account = account
        self.linked = True
        self.customers: dict[str, Thing] = {}
        self.invoices: dict[str, Thing] = {}
        self.items: dict[str, list[Thing]] = {}
        self.finalization_failures: dict[str, str] = {}  # invoice id or "*" → why it cannot be finalised
        self.tax_switched_off: set[str] = set()  # invoice ids, or "*"
        self._timestamp = timestamp
        self._numbers = count(1)
        self._advancing: list[tuple[int, str]] = []

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
        self.customers[customer["id"]] = customer
        return self._change_customer(customer, form)

    def update_customer(self, customer_id: str, form: Form) -> Thing:
        """Change a customer's fields."""
        return self._change_customer(self._customer(customer_id, "id", 404), form)

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

    def create_invoice(self, form: Form) -> Thing:
        """A new draft."""
        customer = self._customer(text(form, "customer") or "", "customer", 400)
        collection = text(form, "collection_method") or "charge_automatically"
        due_date = due_date_of(form, collection, self._timestamp())
        if collection == "send_invoice" and due_date is None:
            raise invalid(
                "If collection_method is send_invoice, days_until_due or due_date is needed.", "due_date"
            )
        invoice: Thing = {
            "id": self._new_id("in"),
            "object": "invoice",
            "account": self.account,
            "amount_due": 0,
            "auto_advance": boolean(form, "auto_advance"),
            "automatic_tax": {"enabled": False, "status": None, "disabled_reason": None},
            "automatically_finalizes_at": None,
            "collection_method": collection,
            "created": self._timestamp(),
            "currency": (text(form, "currency") or "usd").lower(),
            "customer": customer["id"],
            "description": text(form, "description"),
            "due_date": due_date,
            "last_finalization_error": None,
            "livemode": False,
            "metadata": metadata_of(form),
            "number": None,
            "status": "draft",
            "status_transitions": {"finalized_at": None, "paid_at": None, "voided_at": None},
            "subtotal": 0,
            "total": 0,
            "total_taxes": [],
        }
        self._set_tax(invoice, form)
        self.invoices[invoice["id"]] = invoice
        self.items[invoice["id"]] = []
        self._set_advance(invoice, form)
        return invoice

    def update_invoice(self, invoice_id: str, form: Form) -> Thing:
        """Change a draft."""
        invoice = self._draft(invoice_id, "id", 404)
        due_date = due_date_of(form, invoice["collection_method"], self._timestamp())
        self._set_advance(invoice, form)
        if due_date is not None:
            invoice["due_date"] = due_date
        if "description" in form:
            invoice["description"] = text(form, "description")
        invoice["metadata"] = {**invoice["metadata"], **metadata_of(form)}
        self._set_tax(invoice, form)
        return invoice

    def invoice(self, invoice_id: str) -> Thing:
        """An invoice; a deleted draft is gone for good."""
        found = self.invoices.get(invoice_id)
        if found is None:
            raise missing("invoice", invoice_id)
        return found

    def delete_invoice(self, invoice_id: str) -> Thing:
        """Delete a draft; what was finalised cannot be deleted."""
        self._draft(invoice_id, "id", 404)
        del self.invoices[invoice_id]
        del self.items[invoice_id]
        return {"id": invoice_id, "object": "invoice", "deleted": True}

    def list_invoices(self, form: Form) -> list[Thing]:
        """Invoices in all states, newest first."""
        wanted = {name: text(form, name) for name in ("customer", "status", "collection_method")}
        return [
            each
            for each in reversed(self.invoices.values())
            if all(value is None or each[name] == value for name, value in wanted.items())
        ]

    def lines(self, invoice_id: str) -> list[Thing]:
        """An invoice's lines, as items put them there."""
        self.invoice(invoice_id)
        return [line_of(item) for item in self.items[invoice_id]]

    def create_item(self, form: Form) -> Thing:
        """One more line on a draft."""
        customer = self._customer(text(form, "customer") or "", "customer", 400)
        invoice = self._draft(text(form, "invoice") or "", "invoice", 400)
        amount = refuse_item(form, invoice, customer, len(self.items[invoice["id"]]))
        period = group(form, "period")
        item: Thing = {
            "id": self._new_id("ii"),
            "object": "invoiceitem",
            "amount": amount,
            "currency": invoice["currency"],
            "customer": customer["id"],
            "date": self._timestamp(),
            "description": text(form, "description"),
            "invoice": invoice["id"],
            "metadata": metadata_of(form),
            "period": {
                "start": integer(period, "start") or self._timestamp(),
                "end": integer(period, "end") or self._timestamp(),
            },
            "tax_behavior": text(form, "tax_behavior"),
            "tax_code": text(form, "tax_code"),
        }
        self.items[invoice["id"]].append(item)
        self._add_up(invoice)
        return item

    def item(self, item_id: str) -> Thing:
        """An item of any invoice."""
        for item in self._all_items():
            if item["id"] == item_id:
                return item
        raise missing("invoiceitem", item_id)

    def delete_item(self, item_id: str) -> Thing:
        """Take a line off a draft."""
        item = self.item(item_id)
        invoice = self._draft(item["invoice"], "id", 400)
        self.items[invoice["id"]].remove(item)
        self._add_up(invoice)
        return {"id": item_id, "object": "invoiceitem", "deleted": True}

    def list_items(self, form: Form) -> list[Thing]:
        """Items, newest first."""
        invoice = text(form, "invoice")
        return [item for item in reversed(self._all_items()) if invoice is None or item["invoice"] == invoice]

    def finalize(self, invoice_id: str) -> Thing:
        """Finalise a draft now."""
        invoice = self.invoice(invoice_id)
        if invoice["status"] != "draft":
            raise invalid(
                "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
                code="invoice_already_finalized",
            )
        self._finalize(invoice)
        if invoice["last_finalization_error"] is not None:
            raise invalid(invoice["last_finalization_error"]["message"], code="customer_tax_location_invalid")
        return invoice

    def pay(self, invoice_id: str) -> Thing:
        """Settle an open invoice."""
        return self._close(invoice_id, "paid")

    def void(self, invoice_id: str) -> Thing:
        """Void an open invoice."""
        return self._close(invoice_id, "void")

    def advance(self) -> None:
        """Finalise every advancing draft whose time has come."""
        now = self._timestamp()
        while self._advancing and self._advancing[0][0] <= now:
            due, invoice_id = heapq.heappop(self._advancing)
            invoice = self.invoices.get(invoice_id)
            if invoice is None or invoice["status"] != "draft" or not invoice["auto_advance"]:
                continue
            if invoice["automatically_finalizes_at"] == due:
                self._finalize(invoice)

    def _finalize(self, invoice: Thing) -> None:
        why = self.finalization_failures.get(invoice["id"], self.finalization_failures.get("*"))
        if why is not None:
            invoice["last_finalization_error"] = {"type": "invalid_request_error", "message": why}
            return
        invoice["last_finalization_error"] = None
        if invoice["automatic_tax"]["enabled"] and {invoice["id"], "*"} & self.tax_switched_off:
            invoice["automatic_tax"] = {
                "enabled": False,
                "status": None,
                "disabled_reason": "finalization_system_error",
            }
        self._add_up(invoice)
        invoice["status"] = "open"
        invoice["number"] = f"{self.account[-4:].upper()}-{next(self._numbers):04d}"
        invoice["status_transitions"]["finalized_at"] = self._timestamp()
        self._collect(invoice)

    def _collect(self, invoice: Thing) -> None:
        customer = self.customers[invoice["customer"]]
        if invoice["total"] < MINIMUM_CHARGE:
            customer["balance"] = customer.get("balance", 0) + invoice["total"]
            self._settle(invoice, "paid")
        elif invoice["collection_method"] == "charge_automatically" and is_chargeable(customer):
            self._settle(invoice, "paid")

    def _close(self, invoice_id: str, status: str) -> Thing:
        invoice = self.invoice(invoice_id)
        if invoice["status"] != "open":
            raise invalid(
                f"This invoice is {invoice['status']}; it must be open.", code="invoice_not_editable"
            )
        return self._settle(invoice, status)

    def _settle(self, invoice: Thing, status: str) -> Thing:
        invoice["status"] = status
        invoice["status_transitions"]["paid_at" if status == "paid" else "voided_at"] = self._timestamp()
        return invoice

    def _set_advance(self, invoice: Thing, form: Form) -> None:
        invoice["auto_advance"] = boolean(form, "auto_advance", absent=invoice["auto_advance"])
        when = integer(form, "automatically_finalizes_at")
        now = self._timestamp()
        if when is not None:
            if not invoice["auto_advance"]:
                raise invalid("automatically_finalizes_at needs auto_advance.", "automatically_finalizes_at")
            if not now < when <= now + FUTURE_SECONDS_MAX:
                raise invalid(
                    "automatically_finalizes_at must be in the future, within 5 years.",
                    "automatically_finalizes_at",
                )
            invoice["automatically_finalizes_at"] = when
        elif invoice["auto_advance"] and invoice["automatically_finalizes_at"] is None:
            invoice["automatically_finalizes_at"] = now + ADVANCE_SECONDS
        if invoice["auto_advance"]:
            heapq.heappush(self._advancing, (invoice["automatically_finalizes_at"], invoice["id"]))

    def _set_tax(self, invoice: Thing, form: Form) -> None:
        if "automatic_tax" not in form:
            return
        enabled = boolean(group(form, "automatic_tax"), "enabled")
        address = self.customers[invoice["customer"]].get("address") or {}
        located = bool(address.get("country") and address.get("postal_code"))
        status = ("complete" if located else "requires_location_inputs") if enabled else None
        invoice["automatic_tax"] = {"enabled": enabled, "status": status, "disabled_reason": None}

    def _add_up(self, invoice: Thing) -> None:
        invoice["subtotal"] = sum(item["amount"] for item in self.items[invoice["id"]])
        taxed = invoice["automatic_tax"]["status"] == "complete"
        tax = (invoice["subtotal"] * TAX_PERCENT + 50) // 100 if taxed else 0
        invoice["total_taxes"] = [{"amount": tax, "taxable_amount": invoice["subtotal"]}] if taxed else []
        invoice["total"] = invoice["amount_due"] = invoice["subtotal"] + tax

    def _change_customer(self, customer: Thing, form: Form) -> Thing:
        for name in ("description", "name", "email", "phone"):
            if name in form:
                customer[name] = text(form, name) or None
        if "address" in form:
            customer["address"] = texts(form, "address")
        if "invoice_settings" in form:
            method = text(group(form, "invoice_settings"), "default_payment_method")
            customer["invoice_settings"]["default_payment_method"] = method or None
        customer["metadata"] = {**customer["metadata"], **metadata_of(form)}
        return customer

    def _customer(self, customer_id: str, param: str, status: int) -> Thing:
        found = self.customers.get(customer_id)
        if found is None or found.get("deleted"):
            raise missing("customer", customer_id, param, status)
        return found

    def _draft(self, invoice_id: str, param: str, status: int) -> Thing:
        found = self.invoices.get(invoice_id)
        if found is None:
            raise missing("invoice", invoice_id, param, status)
        if found["status"] != "draft":
            raise invalid("This invoice is no longer editable.", param, "invoice_not_editable")
        return found

    def _all_items(self) -> list[Thing]:
        return [item for items in self.items.values() for item in items]

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}_{self.account.removeprefix('acct_')}{next(self._numbers):08d}"

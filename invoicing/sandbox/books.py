"""One Stripe account's customers, invoices and items, and the rules Stripe keeps over them.

Objects are plain dicts in the shape of Stripe's JSON. Times are Unix seconds of the sandbox's clock.
"""

from __future__ import annotations

from collections.abc import Callable

from invoicing.sandbox.finalizing import Finalizing
from invoicing.sandbox.forms import Form, boolean, group, integer, text
from invoicing.sandbox.refusal import invalid, missing
from invoicing.sandbox.rules import (
    Thing,
    discounts_of,
    due_date_of,
    is_within,
    line_of,
    metadata_of,
    refuse_item,
    refuse_sending,
)


class Books(Finalizing):
    """The state behind one `Stripe-Account`. Not thread-safe: the server calls it under its lock."""

    def __init__(self, account: str, timestamp: Callable[[], int]) -> None:
        super().__init__(account, timestamp)
        self.linked = True

    def shown(self) -> Thing:
        """The Stripe account itself."""
        return {
            "id": self.account,
            "object": "account",
            "type": "standard",
            "country": "US",
            "default_currency": "usd",
            "charges_enabled": True,
            "payouts_enabled": True,
            "details_submitted": True,
            "metadata": {},
        }

    def create_invoice(self, form: Form) -> Thing:
        """A new draft."""
        customer = self._customer(text(form, "customer") or "", "customer", 400)
        collection = text(form, "collection_method") or "charge_automatically"
        due_date = due_date_of(form, collection, self._timestamp())
        if collection == "send_invoice":
            refuse_sending(customer, due_date)
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
            "discounts": discounts_of(form, customer),
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
            and all(is_within(form, name, each[name]) for name in ("created", "due_date"))
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
        wanted = {name: text(form, name) for name in ("customer", "invoice")}
        return [
            item
            for item in reversed(self._all_items())
            if all(value is None or item[name] == value for name, value in wanted.items())
        ]

    def finalize(self, invoice_id: str) -> Thing:
        """Finalise a draft now."""
        invoice = self.invoice(invoice_id)
        if invoice["status"] != "draft":
            raise invalid(
                "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
                code="invoice_already_finalized",
            )
        self._finalize(invoice)
        error = invoice["last_finalization_error"]
        if error is not None:
            raise invalid(error["message"], code=error["code"])
        return invoice

    def pay(self, invoice_id: str) -> Thing:
        """Settle an open invoice."""
        return self._close(invoice_id, "paid")

    def void(self, invoice_id: str) -> Thing:
        """Void an open invoice."""
        return self._close(invoice_id, "void")

    def _close(self, invoice_id: str, status: str) -> Thing:
        invoice = self.invoice(invoice_id)
        if invoice["status"] != "open":
            raise invalid(
                f"This invoice is {invoice['status']}; it must be open.", code="invoice_not_editable"
            )
        return self._settle(invoice, status)

    def _draft(self, invoice_id: str, param: str, status: int) -> Thing:
        found = self.invoices.get(invoice_id)
        if found is None:
            raise missing("invoice", invoice_id, param, status)
        if found["status"] != "draft":
            raise invalid("This invoice is no longer editable.", param, "invoice_not_editable")
        return found

    def _all_items(self) -> list[Thing]:
        return [item for items in self.items.values() for item in items]

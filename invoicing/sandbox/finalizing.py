"""What Stripe does by itself with an invoice: taxes, sums, and the moment when it is finalised and collected."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

from invoicing.sandbox.customers import Customers
from invoicing.sandbox.forms import Form, boolean, group, integer
from invoicing.sandbox.refusal import invalid
from invoicing.sandbox.rules import AMOUNT_MAX, Thing, finalization_error, is_chargeable, is_located

FUTURE_SECONDS_MAX: Final = 5 * 366 * 86_400
MINIMUM_CHARGE: Final = 50
TAX_PERCENT: Final = 10  # any rate will do: it only has to be seen
ADVANCE_SECONDS: Final = 3_600  # an advancing draft without a time of its own


class Finalizing(Customers):
    """The invoices of one `Stripe-Account` and when they go out."""

    def __init__(self, account: str, timestamp: Callable[[], int]) -> None:
        super().__init__(account, timestamp)
        self.invoices: dict[str, Thing] = {}
        self.items: dict[str, list[Thing]] = {}
        self.finalization_failures: dict[str, str] = {}  # invoice id or "*" → why it cannot be finalised
        self.tax_switched_off: set[str] = set()  # invoice ids, or "*"
        self.schedulings: list[
            Thing
        ] = []  # each time an invoice was told to send itself, with its lines at that moment
        self._advancing: list[tuple[int, str]] = []

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
        self._add_up(invoice)
        invoice["last_finalization_error"] = self._obstacle(invoice)
        if invoice["last_finalization_error"] is not None:
            return
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

    def _obstacle(self, invoice: Thing) -> Thing | None:
        """Why an invoice cannot be finalised, as Stripe tells it; None: it can."""
        scripted = self.finalization_failures.get(invoice["id"], self.finalization_failures.get("*"))
        if scripted is not None:
            return finalization_error(scripted, "customer_tax_location_invalid")
        if abs(invoice["total"]) > AMOUNT_MAX:
            return finalization_error("The invoice total must be no more than 99999999.", "amount_too_large")
        return None

    def _collect(self, invoice: Thing) -> None:
        customer = self.customers[invoice["customer"]]
        if invoice["total"] < MINIMUM_CHARGE:
            customer["balance"] = customer.get("balance", 0) + invoice["total"]
            self._settle(invoice, "paid")
        elif invoice["collection_method"] == "charge_automatically" and is_chargeable(customer):
            self._settle(invoice, "paid")

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
            self._record_scheduling(invoice)

    def _record_scheduling(self, invoice: Thing) -> None:
        items = self.items[invoice["id"]]
        scheduling = {
            "invoice": invoice["id"],
            "at": self._timestamp(),
            "finalizes_at": invoice["automatically_finalizes_at"],
            "lines": [{"metadata": item["metadata"], "amount": item["amount"]} for item in items],
        }
        self.schedulings.append(scheduling)

    def _set_tax(self, invoice: Thing, form: Form) -> None:
        if "automatic_tax" not in form:
            return
        enabled = boolean(group(form, "automatic_tax"), "enabled")
        located = is_located(self.customers[invoice["customer"]].get("address") or {})
        status = ("complete" if located else "requires_location_inputs") if enabled else None
        invoice["automatic_tax"] = {"enabled": enabled, "status": status, "disabled_reason": None}

    def _add_up(self, invoice: Thing) -> None:
        invoice["subtotal"] = sum(item["amount"] for item in self.items[invoice["id"]])
        percent = sum(each["coupon"]["percent_off"] for each in invoice["discounts"])
        owed = invoice["subtotal"] - invoice["subtotal"] * percent // 100
        taxed = invoice["automatic_tax"]["status"] == "complete"
        tax = (owed * TAX_PERCENT + 50) // 100 if taxed else 0
        invoice["total_taxes"] = [{"amount": tax, "taxable_amount": owed}] if taxed else []
        invoice["total"] = invoice["amount_due"] = owed + tax

"""What would be asked for, shown before anything is sent: by the very functions that make the invoice (I3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from invoicing.lines import InvoiceLine, Unit, exact_charge, shown_exact, subtotal_minor
from invoicing.phantom import phantom_fee
from invoicing.plan import Blocked, InvoiceTerms, NothingToBill, Plan, ToBill, lines_by, plan_by
from invoicing.profile import BillingProfile
from invoicing.schedule import ProfileVersion, send_instant, version_in_force
from schemas.money import minor_unit_digits
from schemas.statements import Statement

NO_PROFILE_THEN = "no billing profile was in force when the statement was generated: this month is not billed"

Basis = Literal["closed", "so_far", "one_time"]


@dataclass(frozen=True, slots=True)
class PreviewLine:
    """One line; `exact` is quantity times price (÷ 60 for seconds) before its one rounding to `amount`."""

    description: str
    quantity: Decimal
    unit: Unit
    unit_price: Decimal
    exact: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Preview:
    """An invoice as it would be; `subtotal` before tax.

    `basis`: a `closed` month never changes; an open one shows usage `so_far`. `problem`: why it would not be sent.
    `phantom_fee`: what sending it costs the account (I6). `notes` say what else people should know.
    """

    account: str
    tenant: str | None
    month: str
    basis: Basis
    currency: str
    lines: tuple[PreviewLine, ...]
    subtotal: Decimal
    subtotal_minor: int
    send_at: datetime | None
    terms: InvoiceTerms | None
    phantom_fee: Decimal | None
    problem: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which version a preview goes by, and what is to be said about that."""

    version: ProfileVersion
    note: str | None = None


def choose_version(
    versions: Sequence[ProfileVersion],
    generated_at: datetime,
    *,
    decided_by: int | None = None,
    trial: BillingProfile | None = None,
) -> Chosen | None:
    """The version to preview by: a trial one; what a retry chose; the one in force; else the present one, as if.

    None: the tenant has no profile and never had one in force.
    """
    if trial is not None:
        return Chosen(ProfileVersion(0, generated_at, None, trial), "by the given file, which is not applied")
    chosen = next((each for each in versions if each.id == decided_by), None)
    in_force = chosen or version_in_force(versions, generated_at)
    if in_force is not None:
        return Chosen(in_force)
    present = next((each for each in versions if each.ended_at is None), None)
    if present is None:
        return None
    return Chosen(present, f"{NO_PROFILE_THEN}; shown as the present profile would bill it")


def preview_statement(
    statement: Statement, generated_at: datetime, chosen: Chosen, basis: Basis, notes: Sequence[str] = ()
) -> Preview:
    """The invoice of a statement (or of what would be one) generated at that instant."""
    profile = chosen.version.profile
    plan = plan_by(chosen.version, statement, generated_at)
    lines = lines_by(chosen.version, statement)
    sends = isinstance(plan, ToBill)
    fee = phantom_fee(statement.totals.usage_cost, statement.currency) if sends else None
    return Preview(
        account=statement.account,
        tenant=statement.tenant,
        month=statement.period,
        basis=basis,
        currency=statement.currency,
        lines=tuple(_line(line, statement.currency) for line in lines),
        subtotal=_amount(subtotal_minor(lines), statement.currency),
        subtotal_minor=subtotal_minor(lines),
        send_at=send_instant(generated_at, profile.billing_day) if sends else None,
        terms=InvoiceTerms.of(profile) if sends else None,
        phantom_fee=fee,
        problem=_problem(plan),
        notes=(*(() if chosen.note is None else (chosen.note,)), *notes),
    )


def preview_one_time(
    plan: ToBill, account: str, tenant: str, month: str, currency: str, fee: Decimal | None
) -> Preview:
    """A one-time invoice; `fee` is what sending it costs the account (I6)."""
    return Preview(
        account=account,
        tenant=tenant,
        month=month,
        basis="one_time",
        currency=currency,
        lines=tuple(_line(line, currency) for line in plan.lines),
        subtotal=_amount(plan.subtotal_minor, currency),
        subtotal_minor=plan.subtotal_minor,
        send_at=plan.send_at,
        terms=plan.terms,
        phantom_fee=fee,
        problem=None,
        notes=(),
    )


def _problem(plan: Plan) -> str | None:
    match plan:
        case Blocked(reason=reason):
            return reason
        case NothingToBill():
            return "nothing_to_bill"
        case _:
            return None


def _line(line: InvoiceLine, currency: str) -> PreviewLine:
    return PreviewLine(
        description=line.description,
        quantity=line.quantity,
        unit=line.unit,
        unit_price=line.unit_price,
        exact=Decimal(shown_exact(exact_charge(line.quantity, line.unit, line.unit_price))),
        amount=_amount(line.amount_minor, currency),
    )


def _amount(minor: int, currency: str) -> Decimal:
    return Decimal(minor).scaleb(-minor_unit_digits(currency))

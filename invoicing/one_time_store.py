"""One-time invoices as rows: each asked for once, by its natural key (I10)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from invoicing.customer_store import billing_details, obstacle
from invoicing.one_time import OneTimeInvoice, Payer
from invoicing.plan import ToBill
from invoicing.setup_store import SetupRefusedError, link_in_force, profile_versions, refuse_currency
from invoicing.states import State
from invoicing.store import begin_drafting, invoice_row
from schemas.identity import fact_id
from schemas.periods import Period


class OneTimeKey(NamedTuple):
    """What tells a one-time invoice of a tenant apart, and the digest of what it asks for."""

    key: str
    content: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A one-time invoice that is written down; `new` is false where it had been before."""

    invoice_id: UUID
    key: str
    new: bool


def payer(connection: Connection, tenant_id: int) -> Payer:
    """Who a one-time invoice goes to.

    Raises:
        SetupRefusedError: its account sends no invoices now, or the tenant's address is not validated.
    """
    row = connection.execute(
        text(
            "select t.account_id, t.code as tenant, a.code as account, a.currency "
            "from tenants t join accounts a on a.id = t.account_id where t.id = :id"
        ),
        {"id": tenant_id},
    ).one()
    refuse_currency(row.currency)
    if link_in_force(connection, row.account_id) is None:
        raise SetupRefusedError("the account has no Stripe account linked; `stripe link` it first")
    reason = obstacle(billing_details(connection, tenant_id))
    if reason is not None:
        raise SetupRefusedError(f"{row.tenant} cannot be invoiced: {reason.replace('_', ' ')}")
    present = [each.profile for each in profile_versions(connection, tenant_id) if each.ended_at is None]
    return Payer(row.account, row.tenant, row.currency, present[0] if present else None)


def one_time_key(
    connection: Connection, tenant_id: int, asked: OneTimeInvoice, given: str | None, *, again: bool
) -> OneTimeKey:
    """The natural key: the one that was given, else derived from the content; `again` takes the content's next one."""
    content = asked.digest()
    if given is not None:
        return OneTimeKey(f"given:{given}", content)
    made: int = connection.execute(
        text(
            "select count(*) from invoices where tenant_id = :id and one_time_content = :content "
            "and starts_with(one_time_key, 'content:')"
        ),
        {"id": tenant_id, "content": content},
    ).scalar_one()
    serial = made + 1 if again or not made else 1
    return OneTimeKey(f"content:{content}.{serial}", content)


def ask_once(
    connection: Connection, tenant_id: int, key: OneTimeKey, month: str | None, plan: ToBill, now: datetime
) -> Asked:
    """Write a one-time invoice down, ready to be drafted; the same key again changes nothing.

    Raises:
        SetupRefusedError: the key was used for something else, or the account is not linked (any more).
    """
    account = connection.execute(
        text(
            "select t.account_id, a.currency from tenants t join accounts a on a.id = t.account_id where t.id = :id"
        ),
        {"id": tenant_id},
    ).one()
    link = link_in_force(connection, account.account_id)
    if link is None:
        raise SetupRefusedError("the account has no Stripe account linked; `stripe link` it first")
    period = Period.parse(month) if month else Period.of(now)
    invoice_id = fact_id("one-time invoice", tenant_id, key.key)
    written = connection.execute(
        text(
            "insert into invoices (id, kind, account_id, tenant_id, period, state, currency, due_at, received_at, "
            "changed_at, one_time_key, one_time_content) values (:id, 'one_time', :account_id, :tenant_id, :period, "
            ":state, :currency, :now, :now, :now, :key, :content) on conflict do nothing"
        ),
        {
            "id": invoice_id,
            "account_id": account.account_id,
            "tenant_id": tenant_id,
            "period": period.first_day,
            "state": State.RECEIVED,
            "currency": account.currency,
            "now": now,
            "key": key.key,
            "content": key.content,
        },
    )
    if not written.rowcount:
        _refuse_other_content(connection, invoice_id, key)
        return Asked(invoice_id, key.key, new=False)
    begin_drafting(connection, invoice_row(connection, invoice_id), link.stripe_account, plan, now)
    return Asked(invoice_id, key.key, new=True)


def _refuse_other_content(connection: Connection, invoice_id: UUID, key: OneTimeKey) -> None:
    content = connection.scalar(
        text("select one_time_content from invoices where id = :id"), {"id": invoice_id}
    )
    if content != key.content:
        raise SetupRefusedError(
            f"the key {key.key.removeprefix('given:')!r} was used for an invoice that asks for something else"
        )

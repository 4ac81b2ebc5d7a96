"""What an account still has to do, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class DueInvoice:
    """A row to work on; the rows of one tenant are worked one after another, for they may need the same customer."""

    id: UUID
    tenant_id: int


@dataclass(frozen=True, slots=True)
class AccountWork:
    """`left`: invoices that are not scheduled yet and wait for nobody. `stripe_account`: where they are made."""

    account: str
    left: int
    stripe_account: str | None


def due_work(connection: Connection, account_id: int, now: datetime, rows_max: int) -> list[DueInvoice]:
    """An account's rows to work on now, longest due first; none while its Stripe link is paused."""
    rows = connection.execute(
        text(
            "select id, tenant_id from invoices i where account_id = :account_id and due_at <= :now "
            "and state in ('received', 'drafting', 'drafted') and not exists (select from stripe_links l "
            "where l.account_id = i.account_id and l.unlinked_at is null and l.paused_at is not null) "
            "order by due_at, id limit :rows_max"
        ),
        {"account_id": account_id, "now": now, "rows_max": rows_max},
    )
    return [DueInvoice(row.id, row.tenant_id) for row in rows]


def put_off(connection: Connection, invoice_id: UUID, reason: str, now: datetime, until: datetime) -> None:
    """Leave a row that cannot be worked for a while, whatever it says."""
    connection.execute(
        text("update invoices set due_at = :until, reason = :reason, changed_at = :now where id = :id"),
        {"id": invoice_id, "until": until, "reason": reason, "now": now},
    )


def unfinished(connection: Connection) -> int:
    """How many invoices are not scheduled yet and wait for nobody, those of paused accounts included."""
    query = "select count(*) from invoices where state in ('received', 'drafting', 'drafted')"
    return int(connection.execute(text(query)).scalar_one())


def work_of(connection: Connection, account_id: int) -> AccountWork:
    """What an account has left to do, due or not yet due again.

    Raises:
        NoResultFound: there is no such account.
    """
    row = connection.execute(
        text(
            "select a.code, l.stripe_account, (select count(*) from invoices where account_id = a.id "
            "and state in ('received', 'drafting', 'drafted')) as left_over "
            "from accounts a left join stripe_links l on l.account_id = a.id and l.unlinked_at is null "
            "where a.id = :account_id"
        ),
        {"account_id": account_id},
    ).one()
    return AccountWork(row.code, row.left_over, row.stripe_account)

"""A small carrier for the invoicing tests: accounts, tenants and statements put into Postgres by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from invoicing import setup_store
from invoicing.gateway import StripeGateway
from invoicing.invoicer import Invoicer, Worked
from invoicing.lines import InvoiceLine
from invoicing.listing_store import InvoiceExplanation, InvoiceListing, explain_invoice, list_invoices
from invoicing.news_store import Receipt, receive_statement
from invoicing.profile import BillingProfile
from invoicing.refresh import refresh_invoice
from invoicing.retry_store import retry_invoice, wake_linked
from invoicing.sandbox import Sandbox
from invoicing.states import State
from schemas.identity import fact_id
from schemas.periods import Period
from schemas.statements import (
    NumbersHeld,
    Statement,
    StatementKind,
    StatementLine,
    StatementTotals,
    sha256_hex,
)

STRIPE_ACCOUNT = "acct_reseller"
OUTBOUND = {
    "kind": "minutes",
    "description": "Outbound minutes",
    "usage_classes": ["outbound_conversational"],
}


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def profile(*products: dict[str, Any], billing_day: int = 20, **fields: Any) -> BillingProfile:
    listed = products or ({**OUTBOUND, "price": "0.012"},)
    return BillingProfile.model_validate(
        {"billing_day": billing_day, "currency": "USD", "products": listed, **fields}
    )


def usage(
    usage_class: str = "outbound_conversational",
    *,
    seconds: int = 0,
    cost: str = "0",
    period: str = "2026-05",
    late: bool = False,
    attempts: int = 1,
) -> StatementLine:
    return StatementLine(
        usage_class=usage_class,
        usage_period=period,
        late=late,
        attempts=attempts,
        calls=attempts,
        answered_seconds=Decimal(seconds),
        billed_seconds=seconds,
        cost=Decimal(cost),
    )


def statement(
    *lines: StatementLine,
    period: str = "2026-05",
    numbers: tuple[NumbersHeld, ...] = (),
    peak: int = 0,
    tenant: str | None = "bigcustomer.mypbx.com",
    account: str = "reseller",
    currency: str = "USD",
) -> Statement:
    usage_cost = sum((line.cost for line in lines), Decimal(0))
    number_cost = sum((held.cost for held in numbers), Decimal(0))
    kind: StatementKind = "unassigned" if tenant is None else "tenant"
    return Statement(
        statement_id=str(fact_id("statement", account, tenant, period)),
        kind=kind,
        account=account,
        tenant=tenant,
        tenant_name=tenant,
        period=period,
        currency=currency,
        lines=lines,
        numbers=numbers,
        peak_concurrent_channels=peak,
        totals=StatementTotals(
            attempts=sum(line.attempts for line in lines),
            calls=sum(line.calls for line in lines),
            answered_seconds=sum((line.answered_seconds for line in lines), Decimal(0)),
            billed_seconds=sum(line.billed_seconds for line in lines),
            usage_cost=usage_cost,
            number_cost=number_cost,
            total_cost=usage_cost + number_cost,
        ),
        as_of=Period.parse(period).ends_at,
    )


@dataclass
class Clock:
    """The invoicer's clock, moved by tests; the sandbox's is moved along."""

    now: datetime
    sandbox: Sandbox | None = None

    def __call__(self) -> datetime:
        return self.now

    def move(self, now: datetime) -> None:
        self.now = now
        if self.sandbox is not None:
            self.sandbox.set_clock(now)


@dataclass
class World:
    """One account with its Stripe account, and as many tenants as a test makes."""

    engine: Engine
    sandbox: Sandbox
    clock: Clock
    account_id: int = 0
    tenants: dict[str, int] = field(default_factory=dict)
    sequence: Any = field(default_factory=lambda: count(1))

    @classmethod
    def made(cls, engine: Engine, sandbox: Sandbox, now: datetime) -> World:
        world = cls(engine, sandbox, Clock(now, sandbox))
        world.clock.move(now)
        world.account_id = world.account("reseller")
        return world

    def account(self, code: str, stripe_account: str | None = STRIPE_ACCOUNT, currency: str = "USD") -> int:
        with self.engine.begin() as connection:
            account_id: int = connection.execute(
                text(
                    "insert into accounts (code, name, currency, home_country, domestic_regions, made_at) "
                    "values (:code, :code, :currency, 'US', array['US'], '2026-01-01Z') returning id"
                ),
                {"code": code, "currency": currency},
            ).scalar_one()
            if stripe_account is not None:
                setup_store.link_stripe(connection, account_id, stripe_account, self.clock())
        return account_id

    def tenant(
        self, code: str = "bigcustomer.mypbx.com", *, validated: bool = True, account_id: int | None = None
    ) -> int:
        with self.engine.begin() as connection:
            tenant_id: int = connection.execute(
                text(
                    "insert into tenants (account_id, code, made_at) values (:account_id, :code, '2026-01-01Z') returning id"
                ),
                {"account_id": account_id or self.account_id, "code": code},
            ).scalar_one()
            connection.execute(
                text(
                    "insert into tenant_details (tenant_id, made_at, name, contact_name, billing_email, phone, "
                    "address_line1, city, region, postal_code, country, address_validated_at) values (:id, '2026-01-01Z', "
                    "'Big Customer', 'Ada Example', :email, '+12125550100', '1 Example Street', 'New York', 'NY', "
                    "'10001', 'US', :validated_at)"
                ),
                {
                    "id": tenant_id,
                    "email": f"billing@{code}",
                    "validated_at": utc(2026, 1, 2) if validated else None,
                },
            )
        self.tenants[code] = tenant_id
        return tenant_id

    def details(self, tenant_id: int, *, validated: bool = True, **changed: str) -> None:
        """A new version of what is known of a tenant, made at the clock's instant."""
        with self.engine.begin() as connection:
            row = connection.execute(
                text("select * from tenant_details where tenant_id = :id order by made_at desc limit 1"),
                {"id": tenant_id},
            ).one()
            version = {
                **row._mapping,
                **changed,
                "made_at": max(self.clock(), row.made_at + timedelta(microseconds=1)),
                "address_validated_at": self.clock() if validated else None,
            }
            names = ", ".join(version)
            values = ", ".join(f":{name}" for name in version)
            connection.execute(text(f"insert into tenant_details ({names}) values ({values})"), version)

    def link(self, stripe_account: str = STRIPE_ACCOUNT) -> int:
        """Link the account's Stripe account, as the command does; gives how many invoices go on."""
        with self.engine.begin() as connection:
            setup_store.link_stripe(connection, self.account_id, stripe_account, self.clock())
            return wake_linked(connection, self.account_id, self.clock())

    def unlink(self) -> None:
        with self.engine.begin() as connection:
            assert setup_store.unlink_stripe(connection, self.account_id, self.clock())

    def bill(self, tenant_id: int, made_at: datetime, definition: BillingProfile | None = None) -> int:
        with self.engine.begin() as connection:
            return setup_store.make_profile(connection, tenant_id, definition or profile(), made_at)

    def close(self, body: Statement, generated_at: datetime | None = None) -> UUID:
        """Store a statement as the month close would."""
        month = Period.parse(body.period)
        with self.engine.begin() as connection:
            self._period(connection, month.first_day)
            canonical = body.canonical_bytes()
            connection.execute(
                text(
                    "insert into statements (sequence, id, period, kind, account_id, tenant_id, currency, usage_cost, "
                    "total_cost, body, sha256, chain, generated_at) values (:sequence, :id, :period, :kind, :account_id, "
                    ":tenant_id, :currency, :usage_cost, :total_cost, :body, :sha256, '', :generated_at)"
                ),
                {
                    "sequence": next(self.sequence),
                    "id": body.statement_id,
                    "period": month.first_day,
                    "kind": body.kind,
                    "account_id": connection.scalar(
                        text("select id from accounts where code = :code"), {"code": body.account}
                    ),
                    "tenant_id": None if body.tenant is None else self.tenants[body.tenant],
                    "currency": body.currency,
                    "usage_cost": body.totals.usage_cost,
                    "total_cost": body.totals.total_cost,
                    "body": canonical,
                    "sha256": sha256_hex(canonical),
                    "generated_at": generated_at or month.ends_at + timedelta(days=2, hours=1),
                },
            )
        return UUID(body.statement_id)

    def receive(self, statement_id: UUID) -> Receipt:
        with self.engine.begin() as connection:
            return receive_statement(connection, statement_id, self.clock())

    def received(self, *lines: StatementLine, **fields: Any) -> UUID:
        """A closed statement whose event the consumer has seen, at the clock's instant."""
        statement_id = self.close(statement(*lines, **fields), self.clock())
        self.receive(statement_id)
        return statement_id

    def gateway(self, **options: Any) -> StripeGateway:
        return StripeGateway(
            "sk_test_sandbox", api_base=self.sandbox.url, **{"network_retries_max": 0, **options}
        )

    def invoicer(self, gateway: StripeGateway | None = None) -> Invoicer:
        return Invoicer(self.engine, gateway or self.gateway(), self.clock)

    def close_at(self, generated_at: datetime, *lines: StatementLine, **fields: Any) -> UUID:
        """A statement that was generated at that instant, and whose event the consumer has seen."""
        statement_id = self.close(statement(*lines, **fields), generated_at)
        self.receive(statement_id)
        return statement_id

    def work(self, statement_id: UUID, gateway: StripeGateway | None = None) -> Worked:
        return self.invoicer(gateway).work(fact_id("invoice", statement_id))

    def work_until_settled(self, statement_id: UUID, tries_max: int = 20) -> InvoiceListing:
        for _ in range(tries_max):
            if self.work(statement_id) is not Worked.LATER:
                break
        return self.listed(statement_id)

    def refresh(self, statement_id: UUID) -> State | None:
        return refresh_invoice(self.invoicer(), fact_id("invoice", statement_id))

    def retry(self, statement_id: UUID) -> State | None:
        with self.engine.begin() as connection:
            return retry_invoice(connection, statement_id, self.clock())

    def listed(self, statement_id: UUID) -> InvoiceListing:
        with self.engine.begin() as connection:
            return next(each for each in list_invoices(connection) if each.statement_id == statement_id)

    def explained(self, statement_id: UUID) -> InvoiceExplanation:
        with self.engine.begin() as connection:
            explanation = explain_invoice(connection, statement_id)
        assert explanation is not None
        return explanation

    def fees(self) -> list[tuple[str, str]]:
        with self.engine.begin() as connection:
            rows = connection.execute(text("select amount, evidence from phantom_fees order by made_at"))
            return [(f"{row.amount:.2f}", row.evidence) for row in rows]

    def in_stripe(self, stripe_account: str = STRIPE_ACCOUNT) -> list[dict[str, Any]]:
        return list(self.sandbox.books(stripe_account).invoices.values())

    def lines_in_stripe(self, stripe_invoice: str, stripe_account: str = STRIPE_ACCOUNT) -> dict[str, int]:
        lines = self.sandbox.books(stripe_account).lines(stripe_invoice)
        return {line["metadata"]["line"]: line["amount"] for line in lines}

    @staticmethod
    def _period(connection: Connection, first_day: date) -> None:
        connection.execute(
            text("insert into periods (period) values (:period) on conflict do nothing"),
            {"period": first_day},
        )


def amounts(lines: tuple[InvoiceLine, ...]) -> dict[str, int]:
    return {line.key: line.amount_minor for line in lines}

"""A small world for tests of usage and months: rows straight in the tables, as if they had been posted."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

from sqlalchemy import Connection, text

from rollup.terms import AccountTerms, domestic_by_default
from schemas.identity import fact_id, record_key
from schemas.periods import Period
from schemas.records import CallRecord, call_record

OCTOBER = Period(2026, 10)
NOVEMBER = OCTOBER.next()
DECEMBER = OCTOBER.plus(2)
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)
US = AccountTerms(1, "USD", "US", domestic_by_default("US"))
_offsets = count()


def at(text_: str) -> datetime:
    """An instant such as `2026-10-31T23:59:59.999`, UTC."""
    return datetime.fromisoformat(text_).replace(tzinfo=UTC)


def call(**fields: Any) -> CallRecord:
    """An answered outbound call of a minute; what matters is overridden."""
    return call_record(
        {
            "id": "call-1",
            "switch": "sbc-1",
            "service": "call",
            "direction": "outbound",
            "source_ip": "192.0.2.1",
            "to_number": "+12125550100",
            "started_at": at("2026-10-10T12:00:00"),
            "answered_at": at("2026-10-10T12:00:05"),
            "ended_at": at("2026-10-10T12:01:05"),
        }
        | fields
    )


class World:
    """Accounts, tenants, numbers, months and posted records in one database."""

    def __init__(self, connection: Connection, *months: Period) -> None:
        self.connection = connection
        for month in months:
            self.run("select make_period(:month)", month=month.first_day)
        self.position_id = self.one(
            "insert into stream_positions (topic, partition, next_offset) values ('calls.raw', 0, 0) returning id"
        )

    def one(self, sql: str, **parameters: object) -> Any:
        return self.connection.execute(text(sql), parameters).scalar_one()

    def run(self, sql: str, **parameters: object) -> None:
        self.connection.execute(text(sql), parameters)

    def account(self, code: str = "acme", currency: str = "USD", made_at: datetime = LONG_AGO) -> int:
        account_id = self.one(
            "insert into accounts (code, name, currency, home_country, domestic_regions, made_at) "
            "values (:code, :code, :currency, 'US', '{US}', :made_at) returning id",
            code=code,
            currency=currency,
            made_at=made_at,
        )
        return int(account_id)

    def tenant(
        self, account_id: int, code: str, made_at: datetime = LONG_AGO, ended_at: datetime | None = None
    ) -> int:
        tenant_id = self.one(
            "insert into tenants (account_id, code, made_at, ended_at) "
            "values (:account_id, :code, :made_at, :ended_at) returning id",
            account_id=account_id,
            code=code,
            made_at=made_at,
            ended_at=ended_at,
        )
        self.rename(tenant_id, f"{code} Inc.", made_at)
        return int(tenant_id)

    def rename(self, tenant_id: int, name: str, made_at: datetime) -> None:
        self.run(
            "insert into tenant_details (tenant_id, made_at, name, contact_name, billing_email, phone, "
            "address_line1, city, region, postal_code, country) values (:tenant_id, :made_at, :name, "
            "'A. Person', 'bill@example.com', '+12125550123', '1 Example Street', 'New York', 'NY', '10001', 'US')",
            tenant_id=tenant_id,
            made_at=made_at,
            name=name,
        )

    def number(
        self,
        number: str,
        account_id: int,
        tenant_id: int | None,
        made_at: datetime = LONG_AGO,
        ended_at: datetime | None = None,
    ) -> None:
        self.run(
            "insert into number_assignments (number, account_id, tenant_id, made_at, ended_at) "
            "values (:number, :account_id, :tenant_id, :made_at, :ended_at)",
            number=number,
            account_id=account_id,
            tenant_id=tenant_id,
            made_at=made_at,
            ended_at=ended_at,
        )

    def running(self) -> None:
        self.run("update installation set state = 'running', bootstrap_finished_at = clock_timestamp()")

    def record(
        self,
        account_id: int | None,
        tenant_id: int | None,
        started_at: datetime,
        *,
        seconds: str | None = "60",
        cost: str = "0.01",
        usage_class: str = "outbound_conversational",
        currency: str = "USD",
        record_id: str | None = None,
    ) -> None:
        """Post one record as a worker would: ledger and monthly usage, to the month that takes it (L5)."""
        offset = next(_offsets)
        record_id = record_id or f"record-{offset}"
        month = Period.of(started_at).first_day
        answered = Decimal(seconds or 0)
        row: dict[str, object] = {
            "started_date": started_at.date(),
            "key": record_key("sbc-1", record_id),
            "content": fact_id(record_id),
            "period": self._posted_to(month),
            "month": month,
            "account_id": account_id,
            "tenant_id": tenant_id,
            "usage_class": usage_class,
            "record_id": record_id,
            "started_at": started_at,
            "answered_at": started_at if seconds else None,
            "ended_at": started_at + timedelta(seconds=float(answered)),
            "answered": seconds is not None,
            "answered_seconds": answered,
            "billed_seconds": int(answered),
            "cost": Decimal(cost),
            "currency": currency,
            "position_id": self.position_id,
            "kafka_offset": offset,
        }
        self.run(
            "insert into usage_records (started_date, key, content, period, late, account_id, tenant_id, usage_class, "
            "rule, switch, record_id, service, direction, started_at, answered_at, ended_at, answered, "
            "answered_seconds, billed_seconds, cost, currency, received_at, position_id, kafka_offset) "
            "values (:started_date, :key, :content, :period, cast(:period as date) <> :month, :account_id, :tenant_id, "
            ":usage_class, 'A3', 'sbc-1', :record_id, 'call', 'outbound', :started_at, :answered_at, :ended_at, "
            ":answered, :answered_seconds, :billed_seconds, :cost, :currency, :ended_at, :position_id, :kafka_offset)",
            **row,
        )
        self.run(
            "insert into monthly_usage as m (shard, period, usage_period, account_id, tenant_id, usage_class, currency, "
            "attempts, calls, answered_seconds, billed_seconds, cost) values (:position_id, :period, :month, "
            ":account_id, :tenant_id, :usage_class, :currency, 1, cast(:answered as boolean)::int, :answered_seconds, "
            ":billed_seconds, :cost) on conflict (period, shard, usage_period, account_id, tenant_id, usage_class, "
            "currency) do update set attempts = m.attempts + 1, calls = m.calls + excluded.calls, "
            "answered_seconds = m.answered_seconds + excluded.answered_seconds, "
            "billed_seconds = m.billed_seconds + excluded.billed_seconds, cost = m.cost + excluded.cost",
            **row,
        )

    def _posted_to(self, month: date) -> date:
        period: date = self.one(
            "select coalesce((select period from periods where period = :month and state = 'open'), "
            "(select min(period) from periods where state = 'open'))",
            month=month,
        )
        return period

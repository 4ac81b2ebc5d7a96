"""A carrier in miniature: a directory written as history, and records received batch by batch, without Kafka.

What is received goes through the same decoding, attribution, rating and posting as in a worker; only the transport
is left out, so that a test says in one line what arrived and when.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from sqlalchemy import Engine, text

from pipeline import position_store
from pipeline.ordinary import Messages, prepare_batch, read
from pipeline.posting import BatchPoster, PreparedBatch
from pipeline.prepare import Message
from pipeline.resolver import resolve_once
from pipeline.settings import InputTopic, Settings
from pipeline.snapshot import Snapshots
from pipeline.worker import input_spec
from rollup.posting_store import by_outcome
from schemas.binary import microseconds_each
from schemas.periods import Period

LONG_AGO: Final = datetime(2026, 1, 1, tzinfo=UTC)


def utc(text_: str) -> datetime:
    """`2026-10-09 12:00` and the like, as an instant."""
    return datetime.fromisoformat(text_).replace(tzinfo=UTC)


class Ends:
    """Kafka's log ends as a test wants them; by default every partition is read to its end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.unread: dict[tuple[str, int], int] = {}

    def ends(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        with self._engine.connect() as connection:
            states = position_store.partition_states(connection, topics)
        known = {(state.topic, state.partition): state.next_offset for state in states}
        return {(topic, 0): 0 for topic in topics} | known | self.unread


class World:
    """One installation with its own database."""

    def __init__(self, engine: Engine, **settings: Any) -> None:
        self.engine = engine
        self.settings = Settings(**settings)
        self.logs = Ends(engine)
        self.poster = BatchPoster(engine)
        self._snapshots: Snapshots | None = None

    def account(
        self, code: str = "reseller", currency: str = "USD", country: str = "US", regions: str = "US,PR"
    ) -> int:
        return self._id(
            "insert into accounts (code, name, currency, home_country, domestic_regions, made_at) "
            "values (:code, :code, :currency, :country, string_to_array(:regions, ','), :made_at) returning id",
            code=code,
            currency=currency,
            country=country,
            regions=regions,
            made_at=LONG_AGO,
        )

    def tenant(
        self, account: int, code: str, made_at: datetime = LONG_AGO, ended_at: datetime | None = None
    ) -> int:
        tenant = self._id(
            "insert into tenants (account_id, code, made_at, ended_at) values (:account, :code, :made_at, :ended_at) returning id",
            account=account,
            code=code,
            made_at=made_at,
            ended_at=ended_at,
        )
        with self.engine.begin() as connection:
            connection.execute(
                text(
                    "insert into tenant_details (tenant_id, made_at, name, contact_name, billing_email, phone, "
                    "address_line1, city, region, postal_code, country, address_validated_at) values (:tenant, :made_at, "
                    ":name, 'Pat Example', 'billing@example.com', '+12125550100', '1 Example Street', 'New York', 'NY', "
                    "'10001', 'US', :made_at)"
                ),
                {"tenant": tenant, "made_at": made_at, "name": code.split(".", maxsplit=1)[0].title()},
            )
        return tenant

    def number(
        self,
        number: str,
        account: int,
        tenant: int | None,
        made_at: datetime = LONG_AGO,
        ended_at: datetime | None = None,
    ) -> int:
        return self._id(
            "insert into number_assignments (number, account_id, tenant_id, made_at, ended_at) "
            "values (:number, :account, :tenant, :made_at, :ended_at) returning id",
            number=number,
            account=account,
            tenant=tenant,
            made_at=made_at,
            ended_at=ended_at,
        )

    def ip(
        self,
        network: str,
        account: int,
        tenant: int | None = None,
        default: int | None = None,
        made_at: datetime = LONG_AGO,
        ended_at: datetime | None = None,
    ) -> int:
        return self._id(
            "insert into ip_assignments (network, account_id, tenant_id, default_tenant_id, made_at, ended_at) "
            "values (:network, :account, :tenant, :default, :made_at, :ended_at) returning id",
            network=network,
            account=account,
            tenant=tenant,
            default=default,
            made_at=made_at,
            ended_at=ended_at,
        )

    def tariff(self, account: int, usage_class: str, cost: str, unit: str = "minute", **terms: Any) -> int:
        return self._id(
            "insert into tariffs (account_id, usage_class, prefix, effective_at, unit, cost, increment_first_seconds, "
            "increment_next_seconds, made_at) values (:account, :usage_class, :prefix, :at, :unit, :cost, :first, :next, :at) "
            "returning id",
            account=account,
            usage_class=usage_class,
            prefix=terms.get("prefix", ""),
            unit=unit,
            cost=cost,
            first=terms.get("first", 1),
            next=terms.get("next", 1),
            at=terms.get("effective_at", LONG_AGO),
        )

    def run(self, first: str = "2026-09", last: str = "2026-12") -> World:
        """Make the months and end the bootstrap."""
        month = Period.parse(first)
        with self.engine.begin() as connection:
            while month <= Period.parse(last):
                connection.execute(text("select make_period(:month)"), {"month": month.first_day})
                month = month.next()
            connection.execute(
                text("update installation set state = 'running', bootstrap_finished_at = now()")
            )
        return self

    def receive(
        self,
        *values: dict[str, Any] | bytes | None,
        at: datetime,
        topic: str = "calls.raw",
        partition: int = 0,
    ) -> Counter[tuple[str, str]]:
        """One batch of one partition, all stamped `at` by Kafka; returns the records by (outcome, reason)."""
        spec_topic = next(each for each in self.settings.inputs if each.topic == topic)
        with self.engine.begin() as connection:
            position = position_store.ensure_position(connection, topic, partition, 0)
        messages = [
            Message(position.next_offset + index, at, None, _bytes(value))
            for index, value in enumerate(values)
        ]
        return by_outcome(self.poster.post(self.prepared(spec_topic, position, messages)))

    def prepared(
        self, topic: InputTopic, position: position_store.Position, messages: Sequence[Message]
    ) -> PreparedBatch:
        spec = input_spec(self.settings, topic, position.id)
        told = read(spec, columns_of(messages))
        latest = told.latest_start
        snapshot = self.snapshots.current
        if latest is not None and latest > snapshot.as_of:
            snapshot = self.snapshots.refresh()
        ordinary, items = prepare_batch(spec, told, snapshot)
        next_offset = position.next_offset + len(messages)
        return PreparedBatch(position.id, position.next_offset, next_offset, items, ordinary)

    @property
    def snapshots(self) -> Snapshots:
        if self._snapshots is None:
            self._snapshots = Snapshots(self.engine)
        return self._snapshots

    def resolve(self) -> int:
        """Let the resolver release what it can."""
        return resolve_once(self.settings, self.engine, self.snapshots, self.logs)  # type: ignore[arg-type]

    def ledger(self) -> list[Any]:
        """Every ledger row with its account's and tenant's code, by record id."""
        return self.query(
            "select u.*, a.code as account, t.code as tenant from usage_records u "
            "left join accounts a on a.id = u.account_id left join tenants t on t.id = u.tenant_id order by record_id"
        )

    def outcomes(self) -> dict[tuple[str, str], int]:
        """The conservation counts by outcome and reason, zeros left out."""
        rows = self.query("select outcome, reason, sum(records)::int as n from outcome_counts group by 1, 2")
        return {(row.outcome, row.reason): row.n for row in rows if row.n}

    def query(self, statement: str, **parameters: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement), parameters))

    def _id(self, statement: str, **parameters: Any) -> int:
        with self.engine.begin() as connection:
            return int(connection.execute(text(statement), parameters).scalar_one())


def inbound(record_id: str, to_number: str, started_at: datetime, **fields: Any) -> dict[str, Any]:
    """An answered inbound call of a minute."""
    return _call(record_id, started_at, {"direction": "inbound", "to_number": to_number, **fields})


def outbound(record_id: str, source_ip: str | None, started_at: datetime, **fields: Any) -> dict[str, Any]:
    """An answered outbound call of a minute."""
    facts = {"direction": "outbound", "to_number": "+12125550199", "source_ip": source_ip, **fields}
    return _call(record_id, started_at, facts)


def invite(
    call_id: str, source_ip: str, observed_at: datetime, x_tenant: str | None = None, cseq: int = 1
) -> dict[str, Any]:
    """An initial INVITE on `sip.raw`."""
    return {
        "switch": "sbc-1",
        "observed_at": observed_at.isoformat(),
        "source_ip": source_ip,
        "call_id": call_id,
        "method": "INVITE",
        "cseq": cseq,
        "headers": {"X-Tenant": x_tenant} if x_tenant is not None else {},
    }


def _call(record_id: str, started_at: datetime, fields: dict[str, Any]) -> dict[str, Any]:
    record = {
        "id": record_id,
        "switch": "sbc-1",
        "service": "call",
        "call_id": f"{record_id}@example.com",
        "from_number": "+12125550150",
        "started_at": started_at.isoformat(),
        "answered_at": started_at.isoformat(),
        "answered_seconds": "60",
        "billed_seconds": 60,
        "cost": "0.0100",
        "currency": "USD",
        **fields,
    }
    return {name: value for name, value in record.items() if value is not None}


def _bytes(value: dict[str, Any] | bytes | None) -> bytes | None:
    return json.dumps(value).encode() if isinstance(value, dict) else value


def columns_of(messages: Sequence[Message]) -> Messages:
    """Messages by column, as the worker has them: Kafka's instants have no microseconds."""
    return Messages(
        np.array([each.offset for each in messages], dtype=np.int64),
        microseconds_each([each.received_at for each in messages]) // 1000 * 1000,
        [each.key for each in messages],
        [each.value for each in messages],
    )

"""The directory in the real Postgres, changed by several at once and tampered with: its history stays whole (A7, A9).

What was accepted, and what refused, must be what a slow model says when it is told the same changes one after the other, in
the order of their instants. Then every interval is where it was asked for: none overlaps, and there is no hole that
nobody asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from ipaddress import ip_address
from itertools import count
from typing import Any, NamedTuple

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from attribution.assignment_store import assign_ip, assign_number, release_ip, release_number
from attribution.changes_store import end_tenant, make_account, make_tenant, take_change_instant
from attribution.details import RefusedChangeError
from attribution.directory import Directory
from attribution.importing import BadImportError, import_csv
from schemas import network
from tests.attribution.stores import change, loaded
from tests.attribution.worlds import account_details, tenant_details

MICROSECOND = timedelta(microseconds=1)
_machines = count(1)


class Owner(NamedTuple):
    account: str
    tenant: str | None
    default: str | None = None


class Span(NamedTuple):
    owner: Owner
    made_at: datetime
    ended_at: datetime | None


class Change(NamedTuple):
    """One change: `asset` None is a tenant's making or end; `kind` number, network or tenant."""

    kind: str
    asset: str
    owner: Owner
    release: bool
    by_file: bool = False


class Made(NamedTuple):
    at: datetime
    change: Change
    accepted: bool


@dataclass
class Model:
    """The slow directory: assets with their spans, tenants with their ends."""

    spans: dict[str, list[Span]] = field(default_factory=dict)
    tenants: dict[tuple[str, str], bool] = field(default_factory=dict)  # whether it still exists

    def takes(self, at: datetime, change: Change) -> bool:
        """Make a change, or refuse it."""
        if change.kind == "tenant":
            return self._takes_tenant(at, change)
        present = self.present(change.asset)
        if change.release:
            if present is None or present.owner.account != change.owner.account:
                return False
            self._end(change.asset, at)
            return True
        account, *names = change.owner
        unknown = any(name and not self.tenants.get((account, name)) for name in names)
        foreign = any(each.owner.account != account for each in self._overlapping(change.asset))
        unchanged = present is not None and present.owner == change.owner
        if unknown or foreign or (unchanged and not change.by_file):
            return False
        if not unchanged:
            self._end(change.asset, at)
            self.spans.setdefault(change.asset, []).append(Span(change.owner, at, None))
        return True

    def present(self, asset: str) -> Span | None:
        last = self.spans.get(asset, [])[-1:]
        return last[0] if last and last[0].ended_at is None else None

    def _overlapping(self, asset: str) -> list[Span]:
        """What is in force of the asset, or of a network that holds it or lies in it."""
        present = {each: span for each in self.spans if (span := self.present(each))}
        if "/" not in asset:
            return [span for each, span in present.items() if each == asset]
        mine = network.network(f"10.0.0.{asset}")
        return [
            span
            for each, span in present.items()
            if "/" in each and mine.overlaps(network.network(f"10.0.0.{each}"))
        ]

    def _takes_tenant(self, at: datetime, change: Change) -> bool:
        name = (change.owner.account, change.asset)
        if not change.release:
            if any((account, code.lower()) == (name[0], name[1].lower()) for account, code in self.tenants):
                return False
            self.tenants[name] = True
            return True
        if not self.tenants.get(name):
            return False
        self.tenants[name] = False
        for asset in list(self.spans):
            present = self.present(asset)
            if present and present.owner.account == name[0] and name[1] in present.owner[1:]:
                self._end(asset, at)
                self.spans[asset].append(Span(Owner(name[0], None), at, None))
        return True

    def _end(self, asset: str, at: datetime) -> None:
        present = self.present(asset)
        if present is not None:
            self.spans[asset][-1] = present._replace(ended_at=at)


ACCOUNTS = ("a", "b")
TENANTS = (None, "x", "y", "Y")
owners = st.builds(Owner, st.sampled_from(ACCOUNTS), st.sampled_from(TENANTS), st.none())
shared = st.builds(Owner, st.sampled_from(ACCOUNTS), st.none(), st.sampled_from(TENANTS))
mostly_made = st.sampled_from([False, False, True])
numbers, networks = st.sampled_from("01"), st.sampled_from(["0/24", "0/30", "8/32"])
changes = st.one_of(
    st.builds(Change, st.just("number"), numbers, owners, release=mostly_made, by_file=st.just(value=False)),
    st.builds(Change, st.just("network"), networks, owners | shared, mostly_made, st.just(value=False)),
    st.builds(
        Change, st.just("tenant"), st.sampled_from(["x", "y", "Y"]), owners, mostly_made, st.just(value=False)
    ),
    st.builds(Change, st.just("number"), numbers, owners, st.just(value=False), st.just(value=True)),
    st.builds(
        Change, st.just("network"), networks, owners | shared, st.just(value=False), st.just(value=True)
    ),
)
TAMPERING = (
    "update {table} set ended_at = null where ended_at is not null",
    "update {table} set ended_at = ended_at - interval '1 microsecond' where ended_at is not null",
    "update {table} set made_at = made_at - interval '1 day'",
    "update {table} set ended_at = made_at + interval '1 microsecond' where ended_at is null",
    "update {table} set tenant_id = null, account_id = account_id + 0, made_at = now()",
    "delete from {table}",
    "truncate {table}",
    "insert into {table} ({asset}, account_id, made_at) select {asset}, account_id, now() - interval '1 day' from {table}",
    "insert into {table} ({asset}, account_id, made_at) select {asset}, account_id, now() + interval '1 day' from {table}",
    "insert into {table} ({asset}, account_id, made_at, ended_at) select {asset}, account_id, made_at, ended_at from {table}",
    "insert into {table} ({asset}, account_id, made_at) "  # noqa: ISC004 (one statement)
    "select {asset}, account_id, last_made_at from {table}, directory_clock where ended_at is null",
)


class DirectoryMachine(RuleBasedStateMachine):
    """Each example has accounts, numbers and networks of its own in one database."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.name = next(_machines)
        self.model = Model()
        self.directory: Directory = loaded(engine)

    @initialize()
    def make_accounts(self) -> None:
        for account in ACCOUNTS:
            change(self.engine, partial(make_account, details=account_details(self.account(account))))
            self.change_at_once([Change("tenant", "x", Owner(account, None), release=False)])

    @rule(at_once=st.lists(changes, min_size=1, max_size=5))
    def change_at_once(self, at_once: list[Change]) -> None:
        with ThreadPoolExecutor(len(at_once)) as pool:
            done = list(pool.map(self.attempt, at_once))
        for made in sorted(done, key=lambda each: each.at):
            assert self.model.takes(made.at, made.change) == made.accepted, made

    @rule(
        statement=st.sampled_from(TAMPERING),
        table=st.sampled_from([("number_assignments", "number"), ("ip_assignments", "network")]),
    )
    def tamper(self, statement: str, table: tuple[str, str]) -> None:
        before = self.rows()
        said = statement.format(table=table[0], asset=table[1])
        refused = False
        try:
            with self.engine.begin() as connection:
                connection.execute(text(said))
        except DBAPIError:
            refused = True
        assert self.rows() == before, said
        touched = "truncate" in said or any(self.concerned(table[0], said))
        assert refused or not touched, said

    @rule()
    def refresh(self) -> None:
        self.directory = loaded(self.engine, self.directory)
        fresh = loaded(self.engine)
        for at in self.instants():
            assert self.answers(self.directory, at) == self.answers(fresh, at) == self.expected(at)

    @invariant()
    def history_is_what_was_asked_for(self) -> None:
        spans = [(self.asset(asset), *span) for asset, spans in self.model.spans.items() for span in spans]
        assert self.rows_of_mine() == sorted(spans, key=str)

    def attempt(self, wanted: Change) -> Made:
        """One change in a transaction and thread of its own; the instant is the one it was given under the lock."""
        with self.engine.connect() as connection, connection.begin() as transaction:
            at = take_change_instant(connection)
            try:
                self.make(connection, at, wanted)
            except (RefusedChangeError, BadImportError):
                transaction.rollback()
                return Made(at, wanted, accepted=False)
        return Made(at, wanted, accepted=True)

    def make(self, connection: Connection, at: datetime, wanted: Change) -> None:
        account, tenant, default = (
            self.account(wanted.owner.account),
            wanted.owner.tenant,
            wanted.owner.default,
        )
        asset = self.asset(wanted.asset)
        if wanted.by_file:
            kind, columns = (
                ("numbers", "number,tenant")
                if wanted.kind == "number"
                else ("ips", "network,tenant,default_tenant")
            )
            values = [asset, tenant or "", *([] if kind == "numbers" else [default or ""])]
            lines = [f"account,{columns}\n", ",".join([account, *values]) + "\n"]
            import_csv(connection, at, kind, lines)  # type: ignore[arg-type] # one of the kinds
            return
        makers: dict[tuple[str, bool], Callable[[], object]] = {
            ("number", False): lambda: assign_number(connection, at, account, asset, tenant),
            ("number", True): lambda: release_number(connection, at, account, asset),
            ("network", False): lambda: assign_ip(connection, at, account, asset, tenant, default),
            ("network", True): lambda: release_ip(connection, at, account, asset),
            ("tenant", False): lambda: make_tenant(connection, at, account, wanted.asset, tenant_details()),
            ("tenant", True): lambda: end_tenant(connection, at, account, wanted.asset),
        }
        makers[wanted.kind, wanted.release]()

    def account(self, name: str) -> str:
        return f"{name}{self.name}"

    def asset(self, name: str) -> str:
        """A number, or a network of 10.x.y.0/24, that no other example has."""
        if "/" not in name:
            return f"+1212{self.name:06}{name}"
        host, length = name.split("/")
        return f"10.{self.name // 256}.{self.name % 256}.{host}/{length}"

    def instants(self) -> list[datetime]:
        edges = {
            edge
            for spans in self.model.spans.values()
            for span in spans
            for edge in span[1:]
            if isinstance(edge, datetime)
        }
        return sorted(edges | {edge - MICROSECOND for edge in edges})

    def answers(self, directory: Directory, at: datetime) -> list[tuple[Any, ...]]:
        def named(tenant_id: int | None) -> str | None:
            return directory.tenant(tenant_id).code if tenant_id else None

        found: list[tuple[Any, ...]] = []
        for name in sorted(self.model.spans):
            if "/" not in name:
                number = directory.number_in_force(self.asset(name), at)
                found.append(
                    (name, number and (directory.account(number.account_id).code, named(number.tenant_id)))
                )
                continue
            address = network.address(self.asset(name).split("/")[0])
            ip = directory.ip_in_force(address, at)
            owner = ip and (
                directory.account(ip.account_id).code,
                named(ip.tenant_id),
                named(ip.default_tenant_id),
            )
            found.append((name, owner))
        return found

    def expected(self, at: datetime) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        for name in sorted(self.model.spans):
            if "/" not in name:
                span = _at(self.model.spans[name], at)
                found.append((name, span and (self.account(span.owner.account), span.owner.tenant)))
                continue
            address = ip_address(self.asset(name).split("/")[0])
            holding = [
                each
                for each in self.model.spans
                if "/" in each and address in network.network(self.asset(each))
            ]
            in_force = [
                (int(each.split("/")[1]), span)
                for each in holding
                if (span := _at(self.model.spans[each], at))
            ]
            longest = max(in_force, default=None, key=lambda each: each[0])
            owner = longest and longest[1].owner
            found.append((name, owner and (self.account(owner.account), owner.tenant, owner.default)))
        return found

    def rows_of_mine(self) -> list[tuple[Any, ...]]:
        accounts = {self.account(each): each for each in ACCOUNTS}
        rows = self.query(_ROWS + " where accounts.code = any(:codes)", codes=list(accounts))
        mine = [
            (asset, Owner(accounts[account], tenant, default), made_at, ended_at)
            for asset, account, tenant, default, made_at, ended_at in rows
        ]
        return sorted(mine, key=str)

    def rows(self) -> list[Any]:
        return sorted(self.query(_ROWS), key=str)

    def concerned(self, table: str, said: str) -> list[Any]:
        """The rows that a statement would touch, so that one that touches none need not be refused."""
        ended = "ended_at is not null" in said
        present = "ended_at is null" in said
        return self.query(
            f"select 1 from {table} where (not :ended or ended_at is not null) and (not :present or ended_at is null) limit 1",
            ended=ended,
            present=present,
        )

    def query(self, statement: str, **parameters: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement), parameters)]


_ROWS = """
    select assets.asset, accounts.code, tenants.code, defaults.code, assets.made_at, assets.ended_at
    from (select number as asset, account_id, tenant_id, null::bigint as default_id, made_at, ended_at from number_assignments
          union all
          select network::text, account_id, tenant_id, default_tenant_id, made_at, ended_at from ip_assignments) as assets
    join accounts on accounts.id = assets.account_id
    left join tenants on tenants.id = assets.tenant_id
    left join tenants as defaults on defaults.id = assets.default_id"""


def _at(spans: Sequence[Span], at: datetime) -> Span | None:
    return next(
        (each for each in spans if each.made_at <= at and (each.ended_at is None or at < each.ended_at)), None
    )


def test_whatever_is_changed_at_once_or_tampered_with_the_history_is_what_was_asked_for(
    world: Engine,
) -> None:
    class Machine(DirectoryMachine):
        def __init__(self) -> None:
            super().__init__(world)

    tries = settings(
        max_examples=30,
        stateful_step_count=15,
        deadline=None,
        phases=[Phase.generate],  # threads meet in another way each time, so a failure cannot be made smaller
    )
    run_state_machine_as_test(Machine, settings=tries)

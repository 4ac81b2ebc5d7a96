"""Least privilege: each database role can do its work, by the real code, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from deploy.stack.postgres import EmbeddedPostgres
from invoicing.sandbox import Sandbox
from pipeline.context_expiry import expire_contexts
from pipeline.database import connect, migrate
from pipeline.relay import relay_once
from pipeline.replay import discard, replay
from rollup import months_store
from rollup.quarantine_store import Chosen
from schemas.periods import Period
from tests.acceptance.months import bodies, close
from tests.invoicing.builders import World as Invoicing
from tests.invoicing.builders import usage
from tests.invoicing.builders import utc as instant
from tests.security.conftest import ROLES, EngineAs, UrlAs
from tests.world import World, inbound, invite, outbound, utc

SEPTEMBER = utc("2026-09-10 12:00")
IN_TIME = SEPTEMBER + timedelta(minutes=10)
NUMBER, SHARED_IP, SHOP = "+12125550101", "198.51.100.7", "shop.example.com"
NO_PRIVILEGE, APPEND_ONLY = "42501", "23001"

NOBODY_MAY = (
    "create table mine (id int)",
    "alter table statements disable trigger refuse_rewrite",
    "truncate statements",
    "truncate usage_records_partition_2026_09",
    "update usage_records_partition_2026_09 set cost = 0",
    "set role tenant_billing_migration",
)
MAY_NOT = {
    "ingest": (
        "insert into billing_profiles (tenant_id, made_at, definition) values (1, now(), '{}')",
        "update billing_profiles set ended_at = now()",
        "select definition from billing_profiles",
        "select billing_email from tenant_details",
        "insert into number_assignments (number, account_id, made_at) values ('+12125550177', 1, now())",
        "update periods set state = 'open'",
        "select body from statements",
        "update usage_records set tenant_id = 1",
        "delete from usage_records",
        "truncate usage_records_partition_2026_09",
        "delete from usage_records_partition_2026_09",
        "select make_period('2027-06-01')",
    ),
    "close": (
        "insert into usage_records select * from usage_records",
        "update monthly_usage set cost = 0",
        "update statements set total_cost = 0",
        "delete from statements",
        "update outbox set value = ''",
        "delete from period_boundaries",
        "insert into invoices (id) values (gen_random_uuid())",
        "select drop_sip_contexts('2026-09-01')",
    ),
    "invoicing": (
        "insert into usage_records select * from usage_records",
        "update monthly_usage set cost = 0",
        "insert into statements select * from statements",
        "update statements set body = ''",
        "delete from phantom_fees",
        "update phantom_fees set amount = 0",
        "delete from invoices",
        "update billing_profiles set definition = '{}'",
        "update stripe_links set stripe_account = 'acct_other'",
    ),
    "directory": (
        "insert into usage_records select * from usage_records",
        "insert into statements select * from statements",
        "update invoices set state = 'received'",
        "update number_assignments set tenant_id = null",
    ),
    "reading": (
        "insert into accounts (code) values ('x')",
        "update installation set state = 'bootstrap'",
    ),
}
NEVER = (
    "update statements set total_cost = 0",
    "delete from statements",
    "truncate statements",
    "update usage_records set tenant_id = null",
    "delete from usage_records_partition_2026_09",
    "truncate usage_records_partition_2026_09",
    "truncate usage_records cascade",
    "update phantom_fees set amount = 0",
    "delete from phantom_fees",
    "truncate phantom_fees",
)


class Told:
    """A producer that acknowledges everything."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def produce(self, topic: str, **event: Any) -> None:
        self.events.append({"topic": topic, **event})

    def flush(self, timeout: float) -> int:  # noqa: ARG002 (the protocol)
        for offset, event in enumerate(self.events):
            event["on_delivery"](None, _Place(offset))
        return 0


class _Place:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset


@pytest.fixture
def carrier(database: Engine) -> World:
    """September runs: an account with a shop, its number, its shared IP; set up by the owner."""
    world = World(database)
    account = world.account()
    world.number(NUMBER, account, world.tenant(account, SHOP))
    world.ip(SHARED_IP, account)
    return world.run()


def received(engine: Engine) -> World:
    """One of everything that a batch can hold, twice, and a held record that its SIP event releases."""
    world = World(engine)
    batch: list[dict[str, Any] | bytes] = [
        inbound("posted", NUMBER, SEPTEMBER),
        {**inbound("unrated", NUMBER, SEPTEMBER), "cost": None},
        outbound("held", SHARED_IP, SEPTEMBER),
        inbound("midnight", NUMBER, utc("2026-09-10 00:01")),
        b"no record",
    ]
    world.receive(*batch, at=IN_TIME)
    world.receive(*batch, at=IN_TIME)
    call = invite("held@example.com", SHARED_IP, SEPTEMBER, SHOP)
    world.receive(call, at=IN_TIME + timedelta(minutes=1), topic="sip.raw")
    world.resolve()
    return world


def test_ingest_posts_holds_releases_quarantines_and_replays(carrier: World, engine_as: EngineAs) -> None:
    world = received(engine_as("ingest"))
    found = carrier.outcomes()
    assert found["posted", ""] == 3
    assert sum(found.values()) == 11
    assert replay(world.engine, world.settings, world.snapshots, Chosen()).total() == 3
    assert discard(world.engine, Chosen(), "of no use") == 3


def test_ingest_lets_sip_contexts_go_that_nothing_can_ask_for(carrier: World, engine_as: EngineAs) -> None:
    received(carrier.engine)
    close(carrier, "2026-09")
    carrier.receive(None, at=SEPTEMBER + timedelta(days=120))
    carrier.logs.unread["calls.raw", 0] = 1_000_000
    with carrier.engine.begin() as connection:
        connection.execute(text("update quarantine set state = 'discarded', resolved_at = now()"))
    dropped = expire_contexts(carrier.settings, engine_as("ingest"), carrier.logs)  # type: ignore[arg-type]
    assert dropped == (Period.parse("2026-09"),)


def test_close_makes_months_closes_them_and_tells_the_world(carrier: World, engine_as: EngineAs) -> None:
    received(carrier.engine)
    closing = World(engine_as("close"))
    with closing.engine.begin() as connection:
        assert months_store.make_month(connection, Period.parse("2027-01"))
    close(closing, "2026-09")
    told = Told()
    assert relay_once(closing.engine, told) == len(told.events) > 0
    assert set(bodies(carrier, "2026-09")) >= {("reseller", SHOP), ("reseller", None)}


def test_invoicing_turns_a_statement_into_an_invoice_and_its_fee(
    database: Engine, engine_as: EngineAs
) -> None:
    with Sandbox().start() as sandbox:
        owner = Invoicing.made(database, sandbox, instant(2026, 6, 3, 1))
        owner.bill(owner.tenant(), instant(2026, 5, 1))
        statement_id = owner.close_at(owner.clock(), usage(seconds=6000, cost="1.00"))
        working = Invoicing(engine_as("invoicing"), sandbox, owner.clock)
        assert working.work_until_settled(statement_id).state == "scheduled"
        owner.clock.move(instant(2026, 6, 21))
        sandbox_invoice = owner.in_stripe()[0]["id"]
        assert working.refresh(statement_id) is not None
        assert owner.explained(statement_id).invoice.stripe_invoice == sandbox_invoice
        assert owner.fees() == [("5.00", "sent")]


def test_the_directory_role_sets_up_accounts_tenants_assets_tariffs_profiles_and_stripe(
    url_as: UrlAs, type_: Callable[..., str], tmp_path: Path
) -> None:
    url = url_as("directory")
    profile = tmp_path / "profile.yaml"
    profile.write_text(
        "billing_day: 20\ncurrency: USD\nproducts:\n  - {kind: flat, description: Platform, price: '25'}\n"
    )
    history = tmp_path / "numbers.csv"
    history.write_text(f"account,number,tenant,made_at\nreseller,+12125550109,{SHOP},2026-03-01T00:00:00Z\n")
    details = ("--name", "Shop", "--contact", "Ada Example", "--email", "billing@example.com")
    address = (
        "--line1",
        "1 Example Street",
        "--city",
        "New York",
        "--region",
        "NY",
        "--postal-code",
        "10001",
    )
    of_shop = ("reseller", SHOP)
    type_(url, "account", "add", "reseller", "--name", "Reseller Inc")
    type_(url, "tenant", "add", *of_shop, *details, *address, "--phone", "+12125550100", "--country", "US")
    type_(url, "tenant", "validate-address", *of_shop)
    type_(url, "tariff", "add", "reseller", "outbound_international", "0.0085")
    type_(url, "bootstrap", "finish")
    type_(url, "number", "assign", "reseller", NUMBER, "--tenant", SHOP)
    type_(url, "ip", "assign", "reseller", "198.51.100.0/24")
    type_(url, "stripe", "link", "reseller", "acct_reseller")
    type_(url, "profile", "apply", *of_shop, str(profile))
    type_(url, "profile", "end", *of_shop)
    type_(url, "stripe", "unlink", "reseller")
    type_(url, "tenant", "end", *of_shop)


def test_reading_shows_everything_and_changes_nothing(
    carrier: World, url_as: UrlAs, type_: Callable[..., str]
) -> None:
    received(carrier.engine)
    close(carrier, "2026-09")
    url = url_as("reading")
    for command in (
        "account list",
        "tenant list reseller",
        f"tenant history reseller {SHOP}",
        "number list reseller",
        "ip list reseller",
        "held list",
        "quarantine list",
        "period status",
        "period rebuild 2026-09",
        "statement list --period 2026-09",
        f"statement show reseller 2026-09 --tenant {SHOP}",
        "conservation",
        "usage",
        "unattributed",
        "reconcile",
        "fees",
        "invoice list",
        "invoice refused-events",
        "bootstrap status",
    ):
        type_(url, *command.split())
    assert "permission denied" in type_(url, "account", "add", "rival", "--name", "Rival", code=1)


def test_migration_makes_a_schema_in_which_applications_own_nothing(
    postgres: EmbeddedPostgres, url_as: UrlAs, database: Engine
) -> None:
    url_as("migration")
    admin = connect(postgres.url(), application_name="test")
    name = f"{database.url.database}_migrated"
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"create database {name}"))
        connection.execute(text("alter role only_migration nocreaterole nosuperuser"))
    owner = connect(postgres.url(name), application_name="test")
    with owner.begin() as connection:
        connection.execute(text("grant create on schema public to tenant_billing_migration"))
    owner.dispose()
    engine = connect(postgres.url(name).replace("postgres@", "only_migration@"), application_name="migrate")
    migrate(engine)
    migrate(engine)
    with engine.connect() as connection:
        assert _owners(connection) == {"tenant_billing_migration"}
        assert connection.scalar(text("select current_user")) == "only_migration"
    engine.dispose()
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"drop database {name} with (force)"))
    admin.dispose()


@pytest.mark.parametrize("role", ROLES)
def test_no_role_can_do_another_ones_work(carrier: World, engine_as: EngineAs, role: str) -> None:
    with engine_as(role).connect() as connection:
        for statement in (*MAY_NOT[role], *NOBODY_MAY):
            assert refusal(connection, statement) == NO_PRIVILEGE, statement


def test_not_even_the_owner_can_change_a_statement_a_ledger_row_or_a_fee(
    carrier: World, engine_as: EngineAs
) -> None:
    received(carrier.engine)
    close(carrier, "2026-09")
    with carrier.engine.begin() as connection:
        connection.execute(
            text(
                "insert into phantom_fees select id, account_id, tenant_id, period, 'in_1', 5, 'USD', 'sent', now() "
                "from statements where kind = 'tenant'"
            )
        )
    with engine_as("migration").connect() as connection:
        for statement in NEVER:
            assert refusal(connection, statement) == APPEND_ONLY, statement


def test_a_temporary_table_is_not_taken_for_ours(carrier: World, engine_as: EngineAs) -> None:
    with engine_as("directory").connect() as connection:
        connection.execute(text("create temporary table installation as select 'bootstrap' as state"))
        connection.execute(text("create temporary table periods (period date, state text)"))
        backdated = (
            "insert into tenants (account_id, code, made_at) values (1, 'early.example.com', '2026-02-01Z')"
        )
        connection.commit()
        assert refusal(connection, backdated) == APPEND_ONLY
        assert connection.scalar(text("select make_period('2026-10-01')")) is False


def refusal(connection: Connection, statement: str) -> str | None:
    """The code with which the database refuses a statement."""
    try:
        connection.execute(text(statement))
    except DBAPIError as error:
        code: str = getattr(error.orig, "pgcode", "")
        return code
    finally:
        connection.rollback()
    return None


def test_no_application_role_owns_or_may_empty_anything_also_not_what_is_made_later(
    carrier: World, engine_as: EngineAs
) -> None:
    with engine_as("close").begin() as connection:
        months_store.make_month(connection, Period.parse("2027-01"))
    with carrier.engine.connect() as connection:
        assert _owners(connection) == {"tenant_billing_migration"}
        relations = connection.execute(
            text(
                "select oid::regclass::text, relispartition from pg_class where relkind in ('r', 'p', 'v') "
                "and relnamespace = 'public'::regnamespace"
            )
        ).all()
        assert "usage_records_partition_2027_01" in [name for name, _ in relations]
        guards = connection.execute(
            text(
                "select tgname, tgenabled from pg_trigger where tgrelid = 'usage_records_partition_2027_01'::regclass"
            )
        ).all()
        assert sorted(map(tuple, guards)) == [("refuse_rewrite", "A"), ("refuse_truncate", "A")]
        for role in ROLES:
            for name, _ in relations:
                may = connection.execute(
                    text("select has_table_privilege(:role, :name, 'truncate, references, trigger')"),
                    {"role": f"tenant_billing_{role}", "name": name},
                ).scalar_one()
                assert not may, (role, name)


def test_every_table_is_somebodys_to_write_and_everyone_readings_to_see(database: Engine) -> None:
    """Who adds a table also says who may use it: in a migration that grants it."""
    with database.connect() as connection:
        tables = connection.scalars(
            text(
                "select oid::regclass::text from pg_class where relkind in ('r', 'p') and not relispartition "
                "and relnamespace = 'public'::regnamespace and relname <> 'alembic_version'"
            )
        ).all()
        for table in tables:
            may = {
                role: connection.scalar(
                    text(
                        "select has_table_privilege(:role, :table, :what) or has_any_column_privilege(:role, :table, :what)"
                    ),
                    {"role": f"tenant_billing_{role}", "table": table, "what": "insert, update"},
                )
                for role in ROLES
            }
            assert not may.pop("reading"), table
            assert any(may.values()), table
            reads = text("select has_table_privilege('tenant_billing_reading', :table, 'select')")
            assert connection.scalar(reads, {"table": table}), table


def _owners(connection: Connection) -> set[str]:
    rows = connection.execute(
        text(
            "select relowner::regrole::text from pg_class where relnamespace = current_schema()::regnamespace "
            "union select proowner::regrole::text from pg_proc where pronamespace = current_schema()::regnamespace"
        )
    )
    return {owner for (owner,) in rows}

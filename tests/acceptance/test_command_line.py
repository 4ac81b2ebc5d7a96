"""What an operator types, and what comes back: done, refused with the reason, or not now."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
import typer.main
from sqlalchemy import Engine, make_url

from deploy.stack.broker import Broker
from invoicing.news_store import receive_statement
from pipeline.cli import app, main
from pipeline.cli.output import show
from rollup.months_store import database_now
from tests.acceptance.months import ReadToTheEnd, close
from tests.conftest import MakeTopics
from tests.world import World, inbound, outbound, utc

TENANT = "bigcustomer.mypbx.com"
FIELDS = {
    "--name": "Big Customer",
    "--contact": "Ada Example",
    "--email": "billing@example.com",
    "--phone": "+12125550100",
    "--line1": "1 Example Street",
    "--city": "New York",
    "--region": "NY",
    "--postal-code": "10001",
    "--country": "US",
}
PROFILE = "billing_day: 20\ncurrency: USD\nproducts:\n  - {kind: flat, description: Platform, price: '25'}\n"
SEPTEMBER = utc("2026-09-10 12:00")


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


CommandLine = Callable[..., Said]


@pytest.fixture
def type_(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[CommandLine]:
    monkeypatch.setenv("DATABASE_URL", database_url)

    def run(*arguments: str, code: int = 0) -> Said:
        monkeypatch.setattr(sys, "argv", ["tenant-billing", *arguments])
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = (stream.decode() for stream in capsysbinary.readouterr())
        said = Said(ended.value.code if isinstance(ended.value.code, int) else 0, out, err)
        assert said.code == code, said
        assert "Traceback" not in said.err
        return said

    yield run
    structlog.reset_defaults()


@pytest.fixture
def set_up(type_: CommandLine) -> CommandLine:
    """An account with one tenant."""
    type_("account", "add", "reseller", "--name", "Reseller Inc")
    add_tenant(type_, TENANT)
    return type_


def add_tenant(type_: CommandLine, code: str, *, expect: int = 0, **instead: str) -> Said:
    fields = FIELDS | {f"--{name.replace('_', '-')}": value for name, value in instead.items()}
    options = [part for pair in fields.items() for part in pair]
    return type_("tenant", "add", "reseller", code, *options, code=expect)


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, *path, name)


EVERY = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_explains_itself(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tenant-billing", *path, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    structlog.reset_defaults()
    said = capsys.readouterr().out
    assert not ended.value.code
    assert EVERY[path].help
    for parameter in EVERY[path].params:
        assert getattr(parameter, "help", None), f"{' '.join(path)} {parameter.name} has no help text"
        assert (parameter.metavar or parameter.opts[0]).strip("-") in said


def test_an_installation_is_set_up_and_its_bootstrap_ends_for_good(type_: CommandLine) -> None:
    assert "up to date" in type_("migrate").err
    assert type_("bootstrap", "status", "--json").json["state"] == "bootstrap"
    assert "14 months" in type_("bootstrap", "finish", "--first-period", "2001-01", code=1).err
    assert "not a month" in type_("bootstrap", "finish", "--first-period", "October", code=2).err
    type_("bootstrap", "finish", "--first-period", "2026-09")
    assert type_("bootstrap", "status", "--json").json["state"] == "running"
    months = type_("period", "status", "--json").json
    assert (months[0]["period"], months[0]["state"]) == ("2026-09", "open")
    assert len(months) >= 4
    type_("bootstrap", "finish", code=1)


def test_a_database_that_was_never_migrated_says_what_to_do(
    type_: CommandLine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(make_url(database_url).database)
    monkeypatch.setenv("DATABASE_URL", database_url.replace(name, "postgres"))
    assert "tenant-billing migrate" in type_("account", "list", code=1).err


def test_a_tenant_gets_numbers_and_ips_and_its_history_tells_of_them(set_up: CommandLine) -> None:
    add_tenant(set_up, "other.example.com")
    set_up("number", "assign", "reseller", "(212) 555-0101", "--tenant", TENANT)
    set_up("number", "assign", "reseller", "+12125550101", "--tenant", "other.example.com")
    set_up("number", "assign", "reseller", "+12125550102", "--tenant", TENANT)
    set_up("number", "assign", "reseller", "+12125550103")
    set_up("number", "release", "reseller", "+12125550102")
    set_up("ip", "assign", "reseller", "192.0.2.7", "--tenant", TENANT)
    set_up("ip", "assign", "reseller", "2001:db8::/48", "--default-tenant", TENANT)
    set_up("ip", "release", "reseller", "192.0.2.7")
    numbers = set_up("number", "list", "reseller", "--json").json
    assert {(each["number"], each["tenant"]) for each in numbers} == {
        ("+12125550101", "other.example.com"),
        ("+12125550103", None),
    }
    assert len(set_up("number", "list", "reseller", "--tenant", "other.example.com", "--json").json) == 1
    [ip] = set_up("ip", "list", "reseller", "--json").json
    assert (ip["network"], ip["tenant"], ip["default_tenant"]) == ("2001:db8::/48", None, TENANT)
    history = set_up("tenant", "history", "reseller", TENANT, "--json").json
    assert {"+12125550101", "+12125550102", "192.0.2.7/32", "2001:db8::/48"} <= {
        each["subject"] for each in history
    }
    assert [each["at"] for each in history] == sorted(each["at"] for each in history)
    assert all(each["at"].endswith("Z") for each in history)
    [account] = set_up("account", "list", "--json").json
    assert (account["account"], account["tenants"], account["numbers"]) == ("reseller", 2, 2)
    assert "+12125550101" in set_up("number", "list", "reseller").out
    set_up("tenant", "end", "reseller", TENANT)
    assert "ended" in set_up("tenant", "end", "reseller", TENANT, code=1).err
    assert [each["tenant"] for each in set_up("tenant", "list", "reseller", "--json").json] == [
        "other.example.com"
    ]


@pytest.mark.parametrize("code", ["big customer", "big@customer", "", "tenant\t"])
def test_an_account_id_with_a_space_or_an_at_sign_is_refused(set_up: CommandLine, code: str) -> None:
    assert "Account ID" in add_tenant(set_up, code, expect=1).err
    assert [each["tenant"] for each in set_up("tenant", "list", "reseller", "--json").json] == [TENANT]


@pytest.mark.parametrize("field", [name.lstrip("-").replace("-", "_") for name in FIELDS])
def test_a_tenant_field_left_empty_is_refused_by_its_name(set_up: CommandLine, field: str) -> None:
    known = {"contact": "contact_name", "email": "billing_email", "line1": "address_line1"}
    said = add_tenant(set_up, "new.example.com", expect=1, **{field: "  "})
    assert f"{known.get(field, field)} is missing" in said.err
    assert len(set_up("tenant", "list", "reseller", "--json").json) == 1


def test_a_tenant_option_left_out_is_wrong_usage_and_named(set_up: CommandLine) -> None:
    said = set_up("tenant", "add", "reseller", "new.example.com", "--name", "New", code=2)
    assert "--contact" in said.err


def test_what_is_not_known_is_refused_and_a_near_match_is_named(set_up: CommandLine) -> None:
    assert "'reseler'" in set_up("tenant", "list", "reseler", code=1).err
    said = set_up("number", "assign", "reseller", "+12125550101", "--tenant", TENANT.upper(), code=1)
    assert TENANT in said.err
    assert "not a possible phone number" in set_up("number", "assign", "reseller", "911", code=1).err
    assert "192.0.2.1/24" in set_up("ip", "assign", "reseller", "192.0.2.1/24", code=1).err
    assert set_up("number", "list", "reseller", "--json").json == []


def test_another_accounts_number_is_refused(set_up: CommandLine) -> None:
    set_up("account", "add", "rival", "--name", "Rival")
    set_up("number", "assign", "reseller", "+12125550101")
    assert "+12125550101" in set_up("number", "assign", "rival", "+12125550101", code=1).err
    set_up("number", "release", "rival", "+12125550101", code=1)
    assert len(set_up("number", "list", "reseller", "--json").json) == 1


def test_a_profile_needs_a_validated_address(set_up: CommandLine, tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text(PROFILE)
    apply = ("profile", "apply", "reseller", TENANT, str(profile))
    assert "address" in set_up(*apply, code=1).err
    set_up("tenant", "change", "reseller", TENANT, "--postal-code", "ABC")
    assert "postal" in set_up("tenant", "validate-address", "reseller", TENANT, code=1).err
    assert "address" in set_up(*apply, code=1).err
    set_up("tenant", "change", "reseller", TENANT, "--postal-code", "10001")
    set_up("tenant", "validate-address", "reseller", TENANT)
    assert "day 20" in set_up(*apply).err
    [version] = set_up("profile", "show", "reseller", TENANT, "--json").json
    assert (version["billing_day"], version["ended_at"]) == (20, None)
    set_up("profile", "end", "reseller", TENANT)
    set_up("profile", "end", "reseller", TENANT, code=1)
    profile.write_text(PROFILE.replace("20", "32"))
    assert "billing_day" in set_up(*apply, code=1).err


def test_a_file_with_bad_rows_is_refused_whole_and_goes_in_once_corrected(
    set_up: CommandLine, tmp_path: Path
) -> None:
    rows = [f"reseller,+1212555{number:04},{TENANT}" for number in range(200, 700)]
    bad = {17: "reseller,+1212,", 230: "reseller,+12125550101,nobody.example.com", 441: "other,+12125550102,"}
    file = tmp_path / "numbers.csv"
    file.write_text("\n".join(["account,number,tenant", *(bad.get(i, row) for i, row in enumerate(rows))]))
    said = set_up("import", "numbers", str(file), code=1)
    assert "3 rows are bad" in said.err
    assert all(f"row {index + 2}:" in said.err for index in bad)
    assert set_up("number", "list", "reseller", "--json").json == []
    file.write_text("\n".join(["account,number,tenant", *rows]))
    assert set_up("import", "numbers", str(file), "--json").json == {
        "kind": "numbers",
        "made": 500,
        "moved": 0,
        "unchanged": 0,
    }
    assert len(set_up("number", "list", "reseller", "--json").json) == 500


def test_history_comes_in_with_its_own_times_only_in_the_bootstrap(
    set_up: CommandLine, tmp_path: Path
) -> None:
    accounts, file = tmp_path / "accounts.csv", tmp_path / "ips.csv"
    accounts.write_text("code,name,currency,home_country,made_at\nolder,Older,USD,US,2026-01-01T00:00:00Z\n")
    set_up("import", "accounts", str(accounts))
    file.write_text("account,network,tenant,made_at\nolder,192.0.2.0/24,,2026-03-01T00:00:00Z\n")
    set_up("import", "ips", str(file))
    [ip] = set_up("ip", "list", "older", "--json").json
    assert ip["made_at"] == "2026-03-01T00:00:00.000000Z"
    set_up("bootstrap", "finish")
    file.write_text("account,network,tenant,made_at\nolder,198.51.100.0/24,,2026-03-01T00:00:00Z\n")
    assert "made_at" in set_up("import", "ips", str(file), code=1).err
    assert len(set_up("ip", "list", "older", "--json").json) == 1


def test_a_tariff_is_added_or_refused_with_the_reason(set_up: CommandLine) -> None:
    set_up("tariff", "add", "reseller", "outbound_international", "0.0085", "--increments", "60/6")
    assert "60/6" in set_up("tariff", "add", "reseller", "number_local", "1", "--increments", "x", code=1).err
    set_up("tariff", "add", "reseller", "--unit", "month", "--", "number_local", "-1", code=1)
    set_up("tariff", "add", "nobody", "number_local", "1", "--unit", "month", code=1)
    [listed] = set_up("tariff", "list", "reseller", "--json").json
    assert (listed["usage_class"], listed["cost"], listed["increments"]) == (
        "outbound_international",
        "0.008500",
        "60/6",
    )
    assert "no account 'nobody'" in set_up("tariff", "list", "nobody", code=1).err


def test_publishing_says_how_many_the_broker_acknowledged(
    type_: CommandLine,
    kafka: Broker,
    topics: MakeTopics,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    topic = topics(calls=2)["calls"]
    monkeypatch.setenv("TENANT_BILLING_INPUTS", json.dumps([{"topic": topic, "kind": "calls"}]))
    body = "".join(json.dumps(inbound(str(n), "+12125550101", SEPTEMBER)) + "\n" for n in range(30))
    file = tmp_path / "calls.jsonl"
    file.write_text(body + "\nnot json\n")
    assert "31 of 31 records were acknowledged" in type_("publish", topic, str(file)).err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(body.encode())))
    report = type_("publish", topic, "-", "--json").json
    assert (report["sent"], report["acknowledged"], report["failed"]) == (30, 30, 0)
    file.write_text(json.dumps({"id": "large", "padding": "x" * 1_100_000}))
    assert "record 1 cannot be sent" in type_("publish", topic, str(file), code=1).err
    assert "no such file" in type_("publish", topic, str(tmp_path / "none"), code=1).err
    assert f"there are {topic}" in type_("publish", "calls.row", str(file), code=1).err


def test_an_unknown_account_is_refused_and_not_listed_as_nothing(set_up: CommandLine) -> None:
    for command in (("usage",), ("unattributed",), ("statement", "list")):
        assert "no account 'nobody'" in set_up(*command, "--account", "nobody", code=1).err
    assert "no account 'nobody'" in set_up("statement", "show", "nobody", "2026-10", code=1).err
    assert "no statement of" in set_up("statement", "show", "reseller", "2026-10", code=1).err


@pytest.fixture
def month(database: Engine, set_up: CommandLine, tmp_path: Path) -> World:
    """September with a call of a tenant, one that waits, and bytes that are no record; still open."""
    profile = tmp_path / "profile.yaml"
    profile.write_text(PROFILE)
    set_up("tenant", "validate-address", "reseller", TENANT)
    set_up("profile", "apply", "reseller", TENANT, str(profile))
    world = World(database)
    account = world.account("carrier")
    tenant = world.tenant(account, "shop.example.com")
    world.number("+12125550101", account, tenant)
    world.ip("198.51.100.7", account)
    set_up("bootstrap", "finish", "--first-period", "2026-09")
    calls = [inbound("a", "+12125550101", SEPTEMBER), outbound("b", "198.51.100.7", SEPTEMBER)]
    world.receive(*calls, b'{"id": "[/red]"}', at=SEPTEMBER)
    return world


def test_what_came_in_can_be_followed(month: World, type_: CommandLine) -> None:
    [kept] = type_("quarantine", "list", "--reason", "unreadable", "--json").json
    assert (kept["topic"], kept["offset"], kept["state"]) == ("calls.raw", 2, "open")
    assert "switch" in kept["detail"]
    assert type_("quarantine", "list", "--account", "carrier", "--json").json == []
    assert "switch" in type_("quarantine", "list").out
    [held] = type_("held", "list", "--json").json
    assert (held["record_id"], held["reason"]) == ("b", "sip_context")
    [usage] = type_("usage", "--json").json
    assert (usage["period"], usage["state"], usage["tenant"]) == ("2026-09", "open", "shop.example.com")
    assert (usage["usage_class"], usage["attempts"], usage["cost"]) == (
        "inbound_conversational",
        1,
        "0.010000",
    )
    assert "open" in type_("usage", "--account", "carrier", "--period", "2026-09").out
    line = type_("conservation", "--json").json
    assert line["holds"] is True
    assert {name: line[name] for name in ("received", "posted", "held", "quarantined")} == {
        "received": 3,
        "posted": 1,
        "held": 1,
        "quarantined": 1,
    }
    assert "received" in type_("conservation").out
    assert "not closed" in type_("period", "rebuild", "2026-09", code=1).err


def test_a_month_says_what_it_waits_for_and_then_closes(
    month: World, type_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cli.months.KafkaBoundaries", lambda *_, **__: ReadToTheEnd(month))
    said = type_("period", "close", "2026-09", code=3)
    assert "are held (sip_context)" in said.err
    status = type_("period", "status", "--json").json[0]
    assert (status["period"], status["state"]) == ("2026-09", "open")
    assert any("are held" in reason for reason in status["waits_for"])
    month.receive(b"tombstone follows", None, at=utc("2026-09-10 13:00"), topic="sip.raw")
    assert month.resolve() == 1
    closed = type_("period", "close", "2026-09", "--json").json
    assert closed["period"] == "2026-09"
    again = type_("period", "close", "2026-09", "--json").json
    assert again["accounts"] == closed["accounts"]
    assert type_("period", "status", "--json").json[0]["state"] == "closed"
    assert all(
        each["sha256"] == each["rebuilt_sha256"]
        for each in type_("period", "rebuild", "2026-09", "--json").json
    )
    assert type_("reconcile", "--json").json == []
    assert "no such month" in type_("period", "close", "2026-13", code=2).err
    assert "not a month of this ledger" in type_("period", "close", "2019-01", code=3).err


def test_statements_and_invoices_are_shown(month: World, type_: CommandLine) -> None:
    month.receive(b"tombstone follows", None, at=utc("2026-09-10 13:00"), topic="sip.raw")
    month.resolve()
    preview = ("invoice", "preview", "carrier", "shop.example.com", "2026-09")
    assert "has no billing profile" in type_(*preview, code=1).err
    close(month, "2026-09")
    listed = type_("statement", "list", "--period", "2026-09", "--account", "carrier", "--json").json
    assert {(each["kind"], each["tenant"], each["usage_cost"]) for each in listed} == {
        ("tenant", "shop.example.com", "0.010000"),
        ("unassigned", None, "0.010000"),
    }
    shown = type_("statement", "show", "carrier", "2026-09", "--tenant", "shop.example.com", "--json")
    [row] = month.query("select body, id from statements where kind = 'tenant' and usage_cost > 0")
    assert shown.out.encode() == bytes(row.body) + b"\n"
    assert "peak_concurrent_channels" in type_("statement", "show", "carrier", "2026-09").out
    type_("statement", "show", "carrier", "2026-10", code=1)
    assert "no billing profile" in type_(*preview, code=1).err
    with month.engine.begin() as connection:
        receive_statement(connection, row.id, database_now(connection))
    [invoice] = type_("invoice", "list", "--json").json
    assert (invoice["tenant"], invoice["period"], invoice["state"]) == (
        "shop.example.com",
        "2026-09",
        "received",
    )
    explained = type_("invoice", "explain", str(row.id), "--json").json
    assert explained["invoice"]["statement_id"] == str(row.id)
    assert "received" in type_("invoice", "retry", str(row.id)).err
    type_("invoice", "retry", "00000000-0000-0000-0000-000000000000", code=1)
    type_("invoice", "explain", "00000000-0000-0000-0000-000000000000", code=1)
    assert type_("fees", "--json").json == []
    assert type_("invoice", "refused-events", "--json").json == []


def test_a_closed_month_can_be_previewed_as_an_invoice(
    month: World, type_: CommandLine, tmp_path: Path
) -> None:
    month.receive(b"x", at=utc("2026-09-10 13:00"), topic="sip.raw")
    month.resolve()
    close(month, "2026-09")
    type_("tenant", "validate-address", "carrier", "shop.example.com")
    type_("profile", "apply", "carrier", "shop.example.com", str(tmp_path / "profile.yaml"))
    preview = ("invoice", "preview", "carrier", "shop.example.com", "2026-09")
    plan = type_(*preview, "--json").json
    assert (plan["subtotal_minor"], len(plan["lines"])) == (2500, 1)
    assert "Platform" in type_(*preview).out


def test_a_table_shows_every_character_and_is_not_folded_for_a_program(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show([{"detail": "[/red] [bold]" + "x" * 200, "[id]": 1}], as_json=False, title="[quarantine]")
    out = capsys.readouterr().out
    assert "[/red] [bold]" + "x" * 200 in out
    assert "[quarantine]" in out


def test_a_stripe_account_is_linked_and_unlinked(set_up: CommandLine) -> None:
    assert "acct_" in set_up("stripe", "link", "reseller", "cus_1", code=1).err
    set_up("stripe", "link", "reseller", "acct_reseller")
    assert "linked already" in set_up("stripe", "link", "reseller", "acct_other", code=1).err
    set_up("stripe", "resume", "reseller", code=1)
    set_up("stripe", "unlink", "reseller")
    set_up("stripe", "unlink", "reseller", code=1)


def test_a_database_that_is_away_is_one_line(type_: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    for command in (("account", "list"), ("migrate",), ("period", "close", "2026-09"), ("invoice", "list")):
        said = type_(*command, code=1)
        assert said.err.startswith("refused: the database does not answer")
        assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("TENANT_BILLING_GRACE_HOURS", "-1", "TENANT_BILLING_GRACE_HOURS"),
        ("TENANT_BILLING_INPUTS", "calls.raw", "inputs"),
        ("TENANT_BILLING_LOG_LEVEL", "loud", "TENANT_BILLING_LOG_LEVEL"),
        ("TENANT_BILLING_LOG_LEVLE", "info", "TENANT_BILLING_LOG_LEVLE"),
        ("DATABASE_URL", "somewhere", "DATABASE_URL"),
        ("DATABASE_URL", "mysql://somewhere/else", "DATABASE_URL"),
    ],
)
def test_a_wrong_setting_is_named(
    type_: CommandLine, monkeypatch: pytest.MonkeyPatch, name: str, value: str, named: str
) -> None:
    monkeypatch.setenv(name, value)
    said = type_("period", "status", code=2)
    assert named in said.err
    assert len(said.err.splitlines()) == 1


def test_the_invoicer_without_a_way_to_stripe_says_what_to_set(
    type_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STRIPE_API_KEY", raising=False)
    monkeypatch.delenv("STRIPE_API_BASE", raising=False)
    assert "STRIPE_API_BASE" in type_("invoicer", code=2).err

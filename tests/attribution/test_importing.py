"""A directory from CSV files: in bulk, all or nothing, every bad row told."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from attribution.changes_store import take_change_instant
from attribution.columns_store import no_progress
from attribution.csv_rows import Kind
from attribution.importing import BadImportError, BadRow, ImportReport, import_csv
from schemas import network
from tests.attribution.stores import change, loaded, make_accounts
from tests.attribution.worlds import on

ACCOUNTS = """\
code,name,currency,home_country,domestic_regions,made_at
first,"First, Inc.",usd,us,,2026-01-01T00:00:00Z
second,Second,EUR,DE,DE AT,2026-01-01T00:00:00Z
"""
TENANTS = """\
account,code,name,contact_name,billing_email,phone,address_line1,address_line2,city,region,postal_code,country,made_at,ended_at
first,old.example.com,Old,Ada,ada@example.com,+12125550100,1 A St,,New York,NY,10001,US,2026-01-01T00:00:00Z,2026-10-20T00:00:00Z
first,new.example.com,New,Bob,bob@example.com,+12125550101,2 A St,Suite 3,New York,NY,10001,US,2026-01-01T00:00:00Z,
"""
NUMBERS = """\
account,number,tenant,made_at,ended_at
first,+12125550100,old.example.com,2026-02-01T00:00:00Z,2026-10-20T00:00:00Z
first,(212) 555-0100,new.example.com,2026-10-20T02:00:00+02:00,
first,+12125550101,,2026-02-01T00:00:00Z,
"""
IPS = """\
account,network,tenant,default_tenant,made_at,ended_at
first,192.0.2.0/24,,new.example.com,2026-02-01T00:00:00Z,
first,192.0.2.7,old.example.com,,2026-02-01T00:00:00Z,2026-03-01T00:00:00Z
second,2001:db8::/32,,,2026-02-01T00:00:00Z,
"""


def import_text(engine: Engine, kind: Kind, content: str | Iterable[str]) -> ImportReport:
    lines = content.splitlines(keepends=True) if isinstance(content, str) else content
    with engine.begin() as connection:
        return import_csv(connection, take_change_instant(connection), kind, lines)


def import_all(engine: Engine) -> None:
    files: list[tuple[Kind, str]] = [
        ("accounts", ACCOUNTS),
        ("tenants", TENANTS),
        ("numbers", NUMBERS),
        ("ips", IPS),
    ]
    for kind, content in files:
        import_text(engine, kind, content)


def bad_rows(engine: Engine, kind: Kind, content: str) -> list[tuple[int, str]]:
    with pytest.raises(BadImportError) as refused:
        import_text(engine, kind, content)
    assert refused.value.bad_row_count == len(refused.value.bad_rows)
    return [(bad.row, bad.reason) for bad in refused.value.bad_rows]


def count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(f"select count(*) from {table}")).scalar_one())


def test_history_comes_in_with_its_own_times_while_the_installation_is_in_bootstrap(database: Engine) -> None:
    import_all(database)
    world = loaded(database)
    found = [world.number_in_force("+12125550100", at) for at in (on(19), on(20))]
    assert [world.tenant(each.tenant_id).code for each in found if each and each.tenant_id] == [
        "old.example.com",
        "new.example.com",
    ]
    unassigned = world.number_in_force("+12125550101", on(1))
    assert unassigned is not None
    assert unassigned.tenant_id is None
    march = datetime.fromisoformat("2026-03-01T00:00:00Z")
    address = network.address("192.0.2.7")
    before, after = (world.ip_in_force(address, at) for at in (march - timedelta(seconds=1), march))
    assert before is not None
    assert after is not None
    assert (before.shared, after.shared) == (False, True)
    assert {account.code: account.domestic_regions for account in world.accounts()} == {
        "first": frozenset({"US", "PR", "VI", "GU", "AS", "MP"}),
        "second": frozenset({"DE", "AT"}),
    }


def test_a_running_installation_refuses_times_of_its_own(world: Engine) -> None:
    found = bad_rows(
        world, "numbers", "account,number,tenant,made_at\nreseller,+12125550100,big,2026-02-01T00:00:00Z\n"
    )
    assert found == [(1, "the installation runs: no change carries its own time")]


def test_a_running_installation_makes_all_rows_at_one_instant(world: Engine) -> None:
    report = import_text(
        world, "numbers", "number,tenant,account\n+12125550100,big,reseller\n+12125550101,,reseller\n"
    )
    assert report == ImportReport("numbers", made=2, moved=0, unchanged=0)
    with world.connect() as connection:
        instants = connection.execute(text("select distinct made_at from number_assignments")).scalars().all()
    assert len(instants) == 1
    import_text(world, "ips", "account,network,tenant\nreseller,192.0.2.0/24,big\n")
    tenants = TENANTS.replace(",made_at,ended_at", "").replace("first,", "reseller,")
    dateless = "\n".join(
        line if not row else line.rsplit(",", 2)[0] for row, line in enumerate(tenants.splitlines())
    )
    assert import_text(world, "tenants", dateless) == ImportReport("tenants", made=2)


def test_a_corrected_file_can_be_sent_again_and_only_what_changed_is_moved(world: Engine) -> None:
    header = "account,number,tenant\n"
    import_text(world, "numbers", header + "reseller,+12125550100,big\nreseller,+12125550101,big\n")
    report = import_text(
        world,
        "numbers",
        header + "reseller,+12125550100,big\nreseller,+12125550101,small\nreseller,+12125550102,\n",
    )
    assert report == ImportReport("numbers", made=2, moved=1, unchanged=1)
    assert count(world, "number_assignments") == 4
    ips = "account,network,tenant,default_tenant\nreseller,192.0.2.1,,{}\n"
    import_text(world, "ips", ips.format("big"))
    assert import_text(world, "ips", ips.format("big")) == ImportReport("ips", made=0, moved=0, unchanged=1)
    assert import_text(world, "ips", ips.format("")) == ImportReport("ips", made=1, moved=1, unchanged=0)


def test_every_bad_number_is_told_with_its_row_its_value_and_the_reason(world: Engine) -> None:
    import_text(world, "numbers", "account,number,tenant\nrival,+12125550199,other\n")
    content = """\
account,number,tenant
reseller,+12125550100,big
reseller,911,big
nobody,+12125550101,
reseller,+12125550102,other
reseller,+12125550103
reseller,+12125550100,small

reseller,+12125550199,big
"""
    with pytest.raises(BadImportError, match="6 rows are bad") as refused:
        import_text(world, "numbers", content)
    rows = refused.value.bad_rows
    assert rows[0] == BadRow(3, "reseller,911,big", "'911' is not a possible phone number")
    assert [(bad.row, bad.reason.partition(", from")[0]) for bad in rows[1:]] == [
        (4, "there is no account 'nobody'"),
        (5, "account 'reseller' has no tenant 'other'"),
        (6, "has 2 values, the header 3"),
        (7, "is assigned by another row of the file in that time"),
        (9, "belongs to account 'rival' already"),
    ]
    assert count(world, "number_assignments") == 1


def test_a_network_of_another_account_is_refused_whether_in_the_database_or_in_the_file(
    world: Engine,
) -> None:
    import_text(world, "ips", "account,network,tenant\nreseller,192.0.2.0/24,\n")
    content = """\
account,network,tenant
rival,192.0.2.128/25,
rival,198.51.100.0/24,
reseller,198.51.100.7,
reseller,192.0.2.5/24,
reseller,192.0.2.9,big
"""
    assert bad_rows(world, "ips", content) == [
        (2, "overlaps 192.0.2.0/24, which belongs to account 'reseller'"),
        (4, "overlaps 198.51.100.0/24, which belongs to account 'rival'"),
        (5, "192.0.2.5/24 has host bits set: say 192.0.2.0/24, or the address alone"),
    ]


def test_history_that_cannot_have_been_is_refused(database: Engine) -> None:
    import_all(database)
    content = """\
account,number,tenant,made_at,ended_at
first,+12125550110,old.example.com,2025-12-31T00:00:00Z,2026-02-01T00:00:00Z
first,+12125550111,old.example.com,2026-02-01T00:00:00Z,
first,+12125550112,,2026-02-01T00:00:00Z,2026-02-01T00:00:00Z
first,+12125550113,,2026-02-01T00:00:00,
first,+12125550114,,yesterday,
first,+12125550115,,2999-02-01T00:00:00Z,
first,+12125550116,,2026-02-01T00:00:00Z,2026-04-01T00:00:00Z
first,+12125550116,,2026-03-01T00:00:00Z,
first,+12125550100,,2026-05-01T00:00:00Z,2026-06-01T00:00:00Z
"""
    reasons = [reason for _, reason in bad_rows(database, "numbers", content)]
    assert [reason.partition("; write")[0].partition(" until")[0] for reason in reasons] == [
        "tenant 'old.example.com' did not exist all that time",
        "tenant 'old.example.com' did not exist all that time",
        "ended_at is not after made_at",
        "made_at '2026-02-01T00:00:00' has no time zone",
        "made_at 'yesterday' is no time",
        "made_at '2999-02-01T00:00:00Z' lies in the future",
        "is assigned by another row of the file in that time",
        "belongs to account 'first' already, from 2026-02-01T00:00:00+00:00",
    ]


def test_accounts_and_tenants_that_are_there_already_are_refused(database: Engine) -> None:
    change(database, make_accounts)
    accounts = (
        "code,name,currency,home_country\nreseller,R,USD,US\nnew,N,USD,US\nnew,N,USD,US\nbad code,B,USD,US\n"
    )
    assert [row for row, _ in bad_rows(database, "accounts", accounts)] == [2, 4, 5]
    line = "reseller,{},N,C,c@example.com,+12125550100,1 A St,New York,NY,10001,US\n"
    header = (
        "account,code,name,contact_name,billing_email,phone,address_line1,city,region,postal_code,country\n"
    )
    tenants = header + "".join(
        line.format(code) for code in ("BIG", "a b", "fresh", "FRESH", "me@example.com")
    )
    assert [row for row, _ in bad_rows(database, "tenants", tenants)] == [2, 3, 5, 6]
    assert (count(database, "accounts"), count(database, "tenants")) == (2, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "the file is empty: a header is missing"),
        ("account,number\n", "columns are missing: tenant"),
        ("account,number,tenant,colour\n", "no such columns in a file of numbers"),
        ('account,number,tenant\nreseller,"+1212555', "cannot be read as CSV: unexpected end of data"),
    ],
)
def test_a_file_of_another_shape_is_refused(world: Engine, content: str, reason: str) -> None:
    assert [found for _, found in bad_rows(world, "numbers", content)] == [reason]


def test_a_spreadsheets_byte_order_mark_and_blanks_do_not_matter(world: Engine) -> None:
    report = import_text(world, "numbers", "\ufeffAccount, Number ,tenant\n reseller , +12125550100 , big \n")
    assert report.made == 1


def test_of_very_many_bad_rows_the_first_hundred_are_told_and_all_are_counted(world: Engine) -> None:
    lines = ["account,number,tenant\n", *(f"reseller,{which},big\n" for which in range(1000))]
    with pytest.raises(BadImportError) as refused:
        import_text(world, "numbers", lines)
    assert (len(refused.value.bad_rows), refused.value.bad_row_count) == (100, 1000)
    assert [bad.row for bad in refused.value.bad_rows] == list(range(2, 102))


def test_numbers_come_in_by_the_thousand_with_progress_and_load_as_they_came(world: Engine) -> None:
    lines = [
        "account,number,tenant\n",
        *(f"reseller,+1212{which:07},big\n" for which in range(2_000_000, 2_005_000)),
    ]
    steps: list[int] = []
    with world.begin() as connection:
        report = import_csv(connection, take_change_instant(connection), "numbers", lines, steps.append)
    assert (report.made, sum(steps)) == (5000, 5000)
    assert len(steps) > 2
    directory = loaded(world)
    owned = [
        directory.number_in_force(f"+1212{which:07}", directory.as_of)
        for which in range(1_999_999, 2_005_001)
    ]
    assert [each is not None for each in owned] == [False, *[True] * 5000, False]
    no_progress(1)


def test_three_bad_rows_among_a_hundred_thousand_refuse_the_file_and_the_corrected_one_goes_in(
    world: Engine,
) -> None:
    import_text(world, "numbers", "account,number,tenant\nrival,+12130000001,other\n")
    good = {row: f"reseller,+1212{row:07},big\n" for row in range(2, 100_002)}
    bad = {
        17: ("reseller,+1212,big", "'+1212' is not a possible phone number"),
        50_001: ("reseller,+12120050001,nobody", "account 'reseller' has no tenant 'nobody'"),
        100_001: ("reseller,+12130000001,big", "belongs to account 'rival' already"),
    }
    spoilt = good | {row: f"{line}\n" for row, (line, _) in bad.items()}
    with pytest.raises(BadImportError, match="3 rows are bad") as refused:
        import_text(world, "numbers", ["account,number,tenant\n", *spoilt.values()])
    told = {each.row: each for each in refused.value.bad_rows}
    assert list(told) == list(bad)
    for row, (line, reason) in bad.items():
        assert told[row].value in line
        assert told[row].reason.startswith(reason)
    assert count(world, "number_assignments") == 1
    report = import_text(world, "numbers", ["account,number,tenant\n", *good.values()])
    assert report == ImportReport("numbers", made=100_000)


@pytest.mark.parametrize(
    "impossible",
    [
        "",
        "911",
        "933",
        "+1212",
        "+12125550100999999",
        "+0012125550100",
        "alice",
        "+1 212 555 0100 x7",
        "2125550100 ext 9",
        "00",
    ],
)
def test_a_number_in_an_impossible_form_is_refused_with_its_value(world: Engine, impossible: str) -> None:
    with pytest.raises(BadImportError) as refused:
        import_text(world, "numbers", f"account,number,tenant\nreseller,{impossible},big\n")
    [bad] = refused.value.bad_rows
    assert (bad.row, bad.value) == (2, f"reseller,{impossible},big")
    assert bad.reason == f"{impossible!r} is not a possible phone number"


@pytest.mark.parametrize(
    ("made_at", "ended_at", "reason"),
    [
        ("2026-10-02T00:00:00Z", "2026-10-02T00:00:00Z", "ended_at is not after made_at"),
        ("2026-10-02T00:00:00Z", "2026-10-01T00:00:00Z", "ended_at is not after made_at"),
        ("2026-10-02T00:00:00", "", "made_at '2026-10-02T00:00:00' has no time zone"),
        ("yesterday", "", "made_at 'yesterday' is no time"),
        ("2099-01-01T00:00:00Z", "", "made_at '2099-01-01T00:00:00Z' lies in the future"),
        (
            "2026-10-19T00:00:00Z",
            "2026-10-21T00:00:00Z",
            "is assigned by another row of the file in that time",
        ),
        ("2026-01-01T00:00:00Z", "", "is assigned by another row of the file in that time"),
    ],
)
def test_a_time_that_cannot_be_or_overlaps_is_refused(
    database: Engine, made_at: str, ended_at: str, reason: str
) -> None:
    import_text(database, "accounts", ACCOUNTS)
    content = (
        "account,number,tenant,made_at,ended_at\nfirst,+12125550100,,2026-02-01T00:00:00Z,2026-10-20T00:00:00Z\n"
        f"first,+12125550100,,{made_at},{ended_at}\n"
    )
    reasons = [said for _, said in bad_rows(database, "numbers", content)]
    assert len(reasons) == 1
    assert reasons[0].startswith(reason)
    assert count(database, "number_assignments") == 0

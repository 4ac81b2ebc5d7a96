"""Changes to the directory, on a real Postgres: what they do, what is refused, and by whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from attribution import changes_store, listing_store
from attribution.assignment_store import assign_ip, assign_number, release_ip, release_number
from attribution.changes_store import (
    change_tenant_details,
    end_tenant,
    make_account,
    make_tenant,
    mark_address_validated,
)
from attribution.details import AccountDetails, RefusedChangeError, UnknownNameError
from attribution.directory import Directory
from attribution.installation_store import bootstrap_state, finish_bootstrap
from schemas import network
from tests.attribution.stores import change, loaded
from tests.attribution.worlds import BEGINNING, account_details, tenant_details

NUMBER = "+12125550100"
MICROSECOND = timedelta(microseconds=1)


def give(account: str, number: str, tenant: str | None) -> Callable[[Connection, datetime], int]:
    return partial(assign_number, account_code=account, number=number, tenant_code=tenant)


def give_ip(
    account: str, prefix: str, tenant: str | None = None, default: str | None = None
) -> Callable[[Connection, datetime], int]:
    return partial(
        assign_ip, account_code=account, network=prefix, tenant_code=tenant, default_tenant_code=default
    )


def owner(directory: Directory, number: str, at: datetime) -> tuple[str, str | None] | None:
    """Account and tenant of a number at an instant, by their codes."""
    assignment = directory.number_in_force(number, at)
    if assignment is None:
        return None
    tenant = directory.tenant(assignment.tenant_id).code if assignment.tenant_id is not None else None
    return directory.account(assignment.account_id).code, tenant


def test_a_number_that_moves_there_and_back_leaves_each_its_time(world: Engine) -> None:
    first = change(world, give("reseller", NUMBER, "big"))
    second = change(world, give("reseller", NUMBER, "small"))
    third = change(world, give("reseller", NUMBER, "big"))
    directory = loaded(world)
    instants = [first - MICROSECOND, first, second - MICROSECOND, second, third]
    assert [owner(directory, NUMBER, at) for at in instants] == [
        None,
        ("reseller", "big"),
        ("reseller", "big"),
        ("reseller", "small"),
        ("reseller", "big"),
    ]


def test_a_released_number_is_nobodys_until_another_account_gets_it(world: Engine) -> None:
    change(world, give("reseller", NUMBER, "big"))
    released = change(world, partial(release_number, account_code="reseller", number=NUMBER))
    taken = change(world, give("rival", NUMBER, None))
    directory = loaded(world)
    assert owner(directory, NUMBER, released) is None
    assert owner(directory, NUMBER, taken) == ("rival", None)


def test_when_a_tenant_ends_its_assets_go_back_to_the_account_at_that_instant(world: Engine) -> None:
    change(world, give("reseller", NUMBER, "big"))
    change(world, give("reseller", "+12125550101", "small"))
    change(world, give_ip("reseller", "192.0.2.1", "big"))
    change(world, give_ip("reseller", "192.0.2.2", default="big"))
    change(world, give_ip("reseller", "192.0.2.3", default="small"))
    ended = change(world, partial(end_tenant, account_code="reseller", code="big"))
    directory = loaded(world)
    assert owner(directory, NUMBER, ended - MICROSECOND) == ("reseller", "big")
    assert owner(directory, NUMBER, ended) == ("reseller", None)
    assert owner(directory, "+12125550101", ended) == ("reseller", "small")
    ips = [directory.ip_in_force(network.address(f"192.0.2.{host}"), ended) for host in (1, 2, 3)]
    assert [(ip.shared, ip.default_tenant_id is None) for ip in ips if ip] == [
        (True, True),
        (True, True),
        (True, False),
    ]
    tenant = directory.tenant_named(1, "big", ended - MICROSECOND)
    assert tenant is not None
    assert directory.tenant_named(1, "big", ended) is None


def test_an_ip_can_be_dedicated_shared_and_released(world: Engine) -> None:
    at = [
        change(world, give_ip("reseller", "192.0.2.0/24")),
        change(world, give_ip("reseller", "192.0.2.0/24", "big")),
        change(world, give_ip("reseller", "192.0.2.0/24", default="big")),
        change(world, partial(release_ip, account_code="reseller", network="192.0.2.0/24")),
    ]
    directory = loaded(world)
    found = [directory.ip_in_force(network.address("192.0.2.9"), instant) for instant in at]
    assert [ip and ip.shared for ip in found] == [True, False, True, None]
    assert found[2] is not None
    assert found[2].default_tenant_id is not None


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (give("rival", NUMBER, "other"), "belongs to account 'reseller'"),
        (give("reseller", NUMBER, "big"), "nothing changes"),
        (give("reseller", NUMBER, "Big"), "did you mean 'big'"),
        (give("reseller", NUMBER, "other"), "has no tenant 'other'"),
        (give("reseller", NUMBER, "gone"), "ended at"),
        (give("nobody", NUMBER, None), "no account 'nobody'"),
        (give("reseller", "911", "big"), "not a possible phone number"),
        (give("reseller", "+1212555", "big"), "not a possible phone number"),
        (partial(release_number, account_code="rival", number=NUMBER), "belongs to account 'reseller'"),
        (partial(release_number, account_code="rival", number="+12125550199"), "is nobody's"),
        (give_ip("rival", "192.0.2.0/24"), "belongs to account 'reseller'"),
        (give_ip("rival", "192.0.2.7"), "overlaps 192.0.2.0/24"),
        (give_ip("rival", "192.0.0.0/16"), "overlaps 192.0.2.0/24"),
        (give_ip("reseller", "192.0.2.0/24", "big"), "nothing changes"),
        (give_ip("reseller", "192.0.2.1/24", "big"), "has host bits set"),
        (give_ip("reseller", "elsewhere"), "does not appear to be"),
        (give_ip("reseller", "192.0.2.9", "big", "small"), "not both"),
        (partial(release_ip, account_code="reseller", network="192.0.2.7"), "is nobody's"),
        (partial(end_tenant, account_code="reseller", code="gone"), "ended at"),
    ],
)
def test_a_refused_change_says_why_and_changes_nothing(
    world: Engine, refused: Callable[[Connection, datetime], object], reason: str
) -> None:
    change(world, give("reseller", NUMBER, "big"))
    change(world, give_ip("reseller", "192.0.2.0/24", "big"))
    change(world, partial(make_tenant, account_code="reseller", code="gone", details=tenant_details()))
    change(world, partial(end_tenant, account_code="reseller", code="gone"))
    before = rows(world)
    with pytest.raises(RefusedChangeError, match=reason):
        change(world, refused)
    assert rows(world) == before


def test_an_asset_changes_once_at_an_instant(world: Engine) -> None:
    def twice(connection: Connection, made_at: datetime) -> None:
        assign_number(connection, made_at, "reseller", NUMBER, "big")
        assign_number(connection, made_at, "reseller", NUMBER, "small")

    with pytest.raises(RefusedChangeError, match="at this very instant"):
        change(world, twice)


def rows(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        return [
            connection.execute(text(f"select * from {table} order by 1, 2")).all()
            for table in ("tenants", "tenant_details", "number_assignments", "ip_assignments")
        ]


@pytest.mark.parametrize("code", ["big customer", "big@example.com", "", "größe", "x" * 129, "big\n", " big"])
def test_an_account_id_with_other_than_letters_digits_dots_and_dashes_is_refused(
    world: Engine, code: str
) -> None:
    with pytest.raises(RefusedChangeError, match="Account ID"):
        change(world, partial(make_tenant, account_code="reseller", code=code, details=tenant_details()))


@pytest.mark.parametrize(
    "field",
    "name contact_name billing_email phone address_line1 city region postal_code country".split(),  # noqa: SIM905 (reads best)
)
@pytest.mark.parametrize("missing", ["", "  "])
def test_a_tenant_without_one_of_its_fields_is_refused(world: Engine, field: str, missing: str) -> None:
    details = replace(tenant_details(), **{field: missing})
    with pytest.raises(RefusedChangeError, match=f"{field} is missing"):
        change(world, partial(make_tenant, account_code="reseller", code="new", details=details))


@pytest.mark.parametrize(
    ("field", "value"), [("billing_email", "nobody"), ("country", "usa"), ("city", "a\x00b")]
)
def test_a_tenants_field_that_cannot_be_right_is_refused(world: Engine, field: str, value: str) -> None:
    details = replace(tenant_details(), **{field: value})
    with pytest.raises(RefusedChangeError, match=field):
        change(world, partial(make_tenant, account_code="reseller", code="new", details=details))


def test_an_account_id_is_unique_in_its_account_without_regard_to_case_even_after_its_tenant_ended(
    world: Engine,
) -> None:
    change(world, partial(end_tenant, account_code="reseller", code="big"))
    with pytest.raises(RefusedChangeError, match="by a tenant that ended"):
        change(world, partial(make_tenant, account_code="reseller", code="BIG", details=tenant_details()))
    change(world, partial(make_tenant, account_code="rival", code="BIG", details=tenant_details()))


@pytest.mark.parametrize(
    ("field", "value"), [("code", "a b"), ("currency", "dollars"), ("home_country", "XX"), ("name", "")]
)
def test_an_account_with_an_impossible_field_is_refused(database: Engine, field: str, value: str) -> None:
    facts = {"code": "new", "name": "New", "currency": "USD", "home_country": "US"} | {field: value}
    with pytest.raises(RefusedChangeError):
        change(database, partial(make_account, details=AccountDetails(**facts, domestic_regions=("US",))))


def test_an_account_is_made_once(world: Engine) -> None:
    with pytest.raises(RefusedChangeError, match="exists already"):
        change(world, partial(make_account, details=account_details("reseller")))


def test_a_new_address_must_be_validated_anew_and_other_details_need_not(world: Engine) -> None:
    def validated_at() -> datetime | None:
        with world.connect() as connection:
            tenant = changes_store.find_tenant(
                connection, changes_store.find_account(connection, "reseller"), "big"
            )
            return changes_store.present_details(connection, tenant.id)[1]

    alter = partial(change_tenant_details, account_code="reseller", code="big")
    assert validated_at() is None
    validated = change(world, partial(mark_address_validated, account_code="reseller", code="big"))
    change(world, partial(mark_address_validated, account_code="reseller", code="big"))
    assert validated_at() == validated
    change(world, partial(alter, details=tenant_details("Bigger")))
    assert validated_at() == validated
    change(world, partial(alter, details=tenant_details("Bigger", city="Albany")))
    assert validated_at() is None
    with pytest.raises(RefusedChangeError, match="nothing changes"):
        change(world, partial(alter, details=tenant_details("Bigger", city="Albany")))


def test_a_tenants_history_tells_all_that_happened_to_it(world: Engine) -> None:
    change(world, give("reseller", NUMBER, "big"))
    change(world, give_ip("reseller", "192.0.2.1", "big"))
    change(world, give_ip("reseller", "192.0.2.1", default="big"))
    change(world, give("reseller", NUMBER, "small"))
    change(world, partial(mark_address_validated, account_code="reseller", code="big"))
    change(
        world,
        partial(change_tenant_details, account_code="reseller", code="big", details=tenant_details("B")),
    )
    change(world, partial(end_tenant, account_code="reseller", code="big"))
    with world.connect() as connection:
        history = listing_store.tenant_history(connection, "reseller", "big")
        with pytest.raises(UnknownNameError):
            listing_store.tenant_history(connection, "rival", "big")
    assert [(entry.event, entry.subject) for entry in history] == [
        ("tenant_made", "big"),
        ("number_assigned", NUMBER),
        ("ip_dedicated", "192.0.2.1/32"),
        ("ip_default_set", "192.0.2.1/32"),
        ("ip_left", "192.0.2.1/32"),
        ("number_left", NUMBER),
        ("address_validated", "1 Example Street, New York, NY, 10001, US"),
        ("details_changed", "B"),
        ("ip_default_cleared", "192.0.2.1/32"),
        ("tenant_ended", "big"),
    ]


def test_lists_show_what_is_in_force(world: Engine) -> None:
    change(world, give("reseller", NUMBER, "big"))
    change(world, give("reseller", "+12125550101", None))
    change(world, give_ip("reseller", "192.0.2.0/24", default="small"))
    change(world, partial(end_tenant, account_code="reseller", code="big"))
    with world.connect() as connection:
        accounts = listing_store.list_accounts(connection)
        tenants = listing_store.list_tenants(connection, "reseller", ended_too=True)
        present = listing_store.list_tenants(connection, "reseller")
        numbers = list(listing_store.list_numbers(connection, "reseller"))
        smalls = list(listing_store.list_numbers(connection, "reseller", "small"))
        ips = listing_store.list_ips(connection, "reseller")
    assert [(a.account, a.tenants, a.numbers, a.ips) for a in accounts] == [
        ("reseller", 1, 2, 1),
        ("rival", 1, 0, 0),
    ]
    assert [(t.tenant, t.name, t.ended_at is None) for t in tenants] == [
        ("big", "Big", False),
        ("small", "Small", True),
    ]
    assert [t.tenant for t in present] == ["small"]
    assert [(n.number, n.tenant) for n in numbers] == [(NUMBER, None), ("+12125550101", None)]
    assert smalls == []
    assert [(ip.network, ip.tenant, ip.default_tenant) for ip in ips] == [("192.0.2.0/24", None, "small")]


# what the database itself refuses


@pytest.mark.parametrize(
    "statement",
    [
        "update number_assignments set tenant_id = null",
        "update number_assignments set made_at = made_at - interval '1 day'",
        "update number_assignments set number = '+12125550199'",
        "delete from number_assignments",
        "truncate number_assignments",
        "update tenants set code = 'other'",
        "delete from ip_assignments",
        "update tenant_details set name = 'someone else'",
    ],
)
def test_the_database_refuses_to_rewrite_history(world: Engine, statement: str) -> None:
    change(world, give("reseller", NUMBER, "big"))
    change(world, give_ip("reseller", "192.0.2.1", "big"))
    with pytest.raises(DBAPIError, match="append-only"), world.begin() as connection:
        connection.execute(text(statement))


def test_an_account_cannot_be_rewritten(world: Engine) -> None:
    with pytest.raises(DBAPIError), world.begin() as connection:
        connection.execute(text("update accounts set currency = 'EUR'"))


def test_an_end_is_written_once(world: Engine) -> None:
    change(world, give("reseller", NUMBER, "big"))
    change(world, partial(release_number, account_code="reseller", number=NUMBER))
    reopened = text("update number_assignments set ended_at = null")
    with pytest.raises(DBAPIError, match="written once"), world.begin() as connection:
        connection.execute(reopened)


@pytest.mark.parametrize("shift", ["- interval '1 second'", "+ interval '1 day'"])
def test_the_database_refuses_a_change_at_another_instant_than_the_clocks(world: Engine, shift: str) -> None:
    insert = text(
        "insert into number_assignments (number, account_id, made_at) "
        f"select :number, 1, last_made_at {shift} from directory_clock"
    )

    def elsewhen(connection: Connection, _made_at: datetime) -> None:
        connection.execute(insert, {"number": NUMBER})

    with pytest.raises(DBAPIError, match="present instant"):
        change(world, elsewhen)


def test_the_database_refuses_overlapping_history_even_in_the_bootstrap(database: Engine) -> None:
    insert = text(
        "insert into number_assignments (number, account_id, made_at, ended_at) "
        "values (:number, :account, cast(:made as timestamptz), cast(:ended as timestamptz))"
    )

    def overlapping(connection: Connection, made_at: datetime) -> None:
        account = make_account(connection, made_at, account_details())
        facts = {"number": NUMBER, "account": account}
        connection.execute(insert, facts | {"made": "2026-01-01Z", "ended": "2026-03-01Z"})
        connection.execute(insert, facts | {"made": "2026-03-01Z", "ended": "2026-04-01Z"})
        connection.execute(insert, facts | {"made": "2026-02-01Z", "ended": "2026-02-02Z"})

    with pytest.raises(DBAPIError, match="already has an assignment in that time"):
        change(database, overlapping)


def test_the_bootstrap_finishes_once_and_for_ever(database: Engine) -> None:
    with database.begin() as connection:
        assert bootstrap_state(connection) == "bootstrap"
        finish_bootstrap(connection, BEGINNING)
        assert bootstrap_state(connection) == "running"
    with pytest.raises(RefusedChangeError, match="no way back"), database.begin() as connection:
        finish_bootstrap(connection, BEGINNING)

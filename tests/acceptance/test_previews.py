"""An open month previewed: what its statement says so far is what the close then says."""

from __future__ import annotations

from datetime import timedelta

from invoicing.preview import Chosen, preview_statement
from invoicing.schedule import ProfileVersion
from rollup.so_far_store import statement_so_far
from schemas.periods import Period
from schemas.statements import Statement
from tests.acceptance.months import bodies, close
from tests.invoicing.builders import profile
from tests.world import World, inbound, utc

SEPTEMBER = Period(2026, 9)
AT = utc("2026-09-10 12:00")
PRODUCTS = (
    {
        "kind": "minutes",
        "description": "Inbound",
        "usage_classes": ["inbound_conversational"],
        "price": "0.35",
    },
    {"kind": "numbers", "description": "Local", "usage_class": "number_local", "price": "1"},
    {"kind": "peak_channels", "description": "Channels", "price": "10"},
)


def test_an_open_month_so_far_is_its_statement_if_nothing_more_comes(world: World) -> None:
    account = world.account()
    tenant, other = world.tenant(account, "a.example.com"), world.tenant(account, "b.example.com")
    world.tariff(account, "number_local", "0.8", "month")
    world.number("+12125550100", account, tenant)
    world.number("+12125550101", account, other)
    world.run(first="2026-08")
    close(world, "2026-08")
    talk = {"answered_at": AT.isoformat(), "ended_at": (AT + timedelta(seconds=90)).isoformat()}
    calls = [inbound(f"{n}", "+12125550100", AT, billed_seconds=90, **talk) for n in range(3)]
    world.receive(*calls, inbound("x", "+12125550101", AT), at=AT + timedelta(hours=1))
    late = inbound("late", "+12125550100", utc("2026-08-20 12:00"))
    world.receive(late, at=AT + timedelta(hours=1))
    with world.engine.begin() as connection:
        so_far = statement_so_far(connection, SEPTEMBER, account, tenant, AT)
        assert statement_so_far(connection, Period(2031, 1), account, tenant, AT) is None
    assert so_far is not None
    close(world, "2026-09")
    closed = Statement.model_validate_json(bodies(world, "2026-09")["reseller", "a.example.com"])
    assert so_far.model_dump(exclude={"as_of"}) == closed.model_dump(exclude={"as_of"})
    assert so_far.peak_concurrent_channels == 3
    version = ProfileVersion(1, AT, None, profile(*PRODUCTS))
    generated = utc("2026-10-03 01:00")
    previewed, billed = (
        preview_statement(each, generated, Chosen(version), "closed") for each in (so_far, closed)
    )
    assert previewed == billed
    assert [str(line.amount) for line in previewed.lines] == ["1.58", "0.35", "1.00", "30.00"]

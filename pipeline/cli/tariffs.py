"""What the carrier charges an account where the switch sends no cost: tariff add, tariff list."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal

import typer

from attribution import changes_store
from pipeline.cli.directory import AccountCode, change, reading
from pipeline.cli.output import AsJson, Refused, say, show
from rollup import months_store, tariff_store
from rollup.tariff_store import NewTariff
from schemas.periods import utc_text


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    tariff = typer.Typer(
        no_args_is_help=True, help="What the carrier charges an account where the switch sends no cost."
    )
    tariff.command("add")(tariff_add)
    tariff.command("list")(tariff_list)
    app.add_typer(tariff, name="tariff")


def tariff_add(
    account: AccountCode,
    usage_class: Annotated[
        str, typer.Argument(help="Such as outbound_international, number_local, caller_id_lookup.")
    ],
    cost: Annotated[str, typer.Argument(help="Amount in the account's currency, such as 0.0085.")],
    unit: Annotated[
        Literal["minute", "event", "month"], typer.Option(help="What the cost is for.")
    ] = "minute",
    prefix: Annotated[
        str, typer.Option(help="Called digits after the plus sign; the longest prefix wins.")
    ] = "",
    increments: Annotated[str, typer.Option(help="First and following seconds, such as 60/6.")] = "1/1",
    effective: Annotated[
        datetime | None, typer.Option(help="UTC; default: now. The past only where no tariff was.")
    ] = None,
) -> None:
    """Make a tariff."""
    first, _, following = increments.partition("/")
    try:
        amount, steps = Decimal(cost), (int(first), int(following))
    except (InvalidOperation, ValueError):
        raise Refused(f"cost {cost!r} must be an amount and increments {increments!r} like 60/6") from None
    with change("tariff add") as (connection, made_at):
        owner = changes_store.find_account(connection, account)
        effective_at = effective.replace(tzinfo=UTC) if effective else made_at
        new = NewTariff(owner.id, usage_class, effective_at, unit, amount, prefix, *steps)
        tariff_store.add_tariff(connection, made_at, new)
    say(f"{usage_class} costs {cost} per {unit} from {utc_text(effective_at)}")


def tariff_list(account: AccountCode, *, as_json: AsJson = False) -> None:
    """List an account's tariffs, in the order they take effect."""
    with reading("tariff list") as connection:
        owner, now = changes_store.find_account(connection, account), months_store.database_now(connection)
        tariffs = tariff_store.tariff_rows(connection, now, owner.id)
    rows = [
        {
            "usage_class": each.usage_class,
            "prefix": each.prefix,
            "effective_at": each.effective_at,
            "cost": each.cost,
            "currency": owner.currency,
            "unit": each.unit,
            "increments": f"{each.increment_first_seconds}/{each.increment_next_seconds}",
        }
        for each in tariffs
    ]
    show(rows, as_json=as_json, title=f"tariffs of {account}", empty="none")

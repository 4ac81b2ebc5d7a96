"""What came out beside what the generator knows; every difference in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.sample.carrier import SampleCarrier
from deploy.sample.expected import Expected, Owner, Usage
from deploy.sample.outcome_store import ClosedStatement
from invoicing.listing_store import FeeListing, InvoiceListing
from invoicing.phantom import PHANTOM_USAGE
from rollup.conservation_store import Conservation


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that came out."""

    outcomes: Mapping[tuple[str, str], int]
    statements: tuple[ClosedStatement, ...]
    statements_after_late: tuple[ClosedStatement, ...]
    usage: Mapping[Owner, Usage]
    late_usage: Mapping[Owner, Usage]
    unattributed: Mapping[str, int]
    headers_ignored: Mapping[str, int]
    invoices: tuple[InvoiceListing, ...]
    fees: tuple[FeeListing, ...]
    invoice_totals: Mapping[str, int]  # by Stripe's id: what Stripe's books say, in minor units
    conservation: Conservation
    acknowledged: int
    gap_records: int
    discrepancies: tuple[str, ...]


def differences(carrier: SampleCarrier, expected: Expected, found: Outcome) -> list[str]:
    """Everything that is not as it should be; empty where all is right."""
    told = [
        *_counts("messages that became", expected.outcomes, found.outcomes),
        *_counts("records without a tenant because of", expected.unattributed, found.unattributed),
        *_counts("ignored headers that named", expected.headers_ignored, found.headers_ignored),
        *_usages("the month", expected.usage, found.usage),
        *_usages("late usage", expected.late_usage, found.late_usage),
        *_statements(carrier, expected, found.statements),
        *_invoices(carrier, expected, found),
        *found.discrepancies,
    ]
    if found.statements != found.statements_after_late:
        told.append("a statement changed after the close")
    if not found.conservation.holds:
        told.append(f"the counts are not those of the tables: {found.conservation}")
    if found.conservation.received != found.acknowledged:
        told.append(
            f"{found.acknowledged} messages were acknowledged, {found.conservation.received} are accounted for"
        )
    if found.gap_records:
        told.append(f"{found.gap_records} messages were dropped by the broker before they were read")
    return told


def expected_invoices(carrier: SampleCarrier, expected: Expected) -> dict[str, str]:
    """The state of each tenant's invoice at the end, by Account ID."""
    states = {}
    for tenant in carrier.tenants:
        if tenant.profile is None:
            states[tenant.code] = "not_billed"
        elif len(tenant.profile.products) == 1 and Owner(tenant.account, tenant.code) not in expected.usage:
            states[tenant.code] = "nothing_to_bill"
        else:
            states[tenant.code] = "sent"
    return states


def expected_fees(carrier: SampleCarrier, expected: Expected) -> set[str]:
    """Tenants whose invoice was sent for next to no usage."""
    sent = {code for code, state in expected_invoices(carrier, expected).items() if state == "sent"}
    used = {owner.tenant: usage.cost for owner, usage in expected.usage.items()}
    return {code for code in sent if used.get(code, 0) < PHANTOM_USAGE["USD"]}


def _counts(what: str, expected: Mapping[Any, int], found: Mapping[Any, int]) -> Iterator[str]:
    for key in sorted({*expected, *found}, key=str):
        if expected.get(key, 0) != found.get(key, 0):
            yield f"{what} {_spelt(key)}: {found.get(key, 0)}, expected {expected.get(key, 0)}"


def _usages(what: str, expected: Mapping[Owner, Usage], found: Mapping[Owner, Usage]) -> Iterator[str]:
    for owner in sorted({*expected, *found}, key=str):
        if expected.get(owner, Usage()) != found.get(owner, Usage()):
            yield f"{what} of {_spelt(owner)}: {found.get(owner)}, expected {expected.get(owner)}"


def _statements(
    carrier: SampleCarrier, expected: Expected, found: tuple[ClosedStatement, ...]
) -> Iterator[str]:
    owners = Counter(Owner(each.statement.account, each.statement.tenant) for each in found)
    right = Counter(
        [
            *(Owner(each.account, each.code) for each in carrier.tenants),
            *(Owner(each.code, None) for each in carrier.accounts),
        ]
    )
    yield from _counts("statements of", right, owners)
    for each in found:
        owner = Owner(each.statement.account, each.statement.tenant)
        totals, usage = each.statement.totals, expected.usage.get(owner, Usage())
        said = Usage(
            totals.attempts, totals.calls, totals.answered_seconds, totals.billed_seconds, totals.usage_cost
        )
        if said != usage:
            yield f"the statement of {_spelt(owner)} says {said}, expected {usage}"
        numbers = {held.usage_class: held.count for held in each.statement.numbers}
        yield from _counts(f"numbers held by {_spelt(owner)}:", _numbers(carrier, owner), numbers)


def _numbers(carrier: SampleCarrier, owner: Owner) -> Counter[str]:
    """Numbers held at the month's end; the sample's toll-free ones begin with +18."""
    return Counter(
        "number_toll_free" if each.number.startswith("+18") else "number_local"
        for each in carrier.numbers
        if each.ended_at is None and (each.account, each.tenant) == owner
    )


def _invoices(carrier: SampleCarrier, expected: Expected, found: Outcome) -> Iterator[str]:
    states = {each.tenant: each.state for each in found.invoices}
    right = expected_invoices(carrier, expected)
    for tenant in sorted({*right, *states}):
        if right.get(tenant) != states.get(tenant):
            yield f"the invoice of {tenant} is {states.get(tenant)}, expected {right.get(tenant)}"
    fees = {each.tenant for each in found.fees}
    if fees != (wanted := expected_fees(carrier, expected)):
        yield f"phantom fees for {sorted(fees)}, expected {sorted(wanted)}"
    ours = {each.stripe_invoice: each.subtotal_minor for each in found.invoices if each.stripe_invoice}
    yield from _counts(
        "Stripe's total of invoice", {key: total or 0 for key, total in ours.items()}, found.invoice_totals
    )


def _spelt(key: Hashable) -> str:
    if isinstance(key, Owner):
        return f"{key.tenant or 'unassigned usage'} of {key.account}" if key.account else "nobody"
    return " ".join(str(part) for part in key if part) if isinstance(key, tuple) else str(key)

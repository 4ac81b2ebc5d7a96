"""What we ask of Stripe and how its answers are understood, against the sandbox."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import pytest

from invoicing.gateway import StripeGateway
from invoicing.lines import InvoiceLine
from invoicing.outcomes import Ok, RefusedForGood, RefusedPermission, TemporaryFailure
from invoicing.remote import CustomerFacts, DraftFacts, ItemFacts, RemoteInvoice
from invoicing.sandbox import Sandbox
from tests.invoicing.builders import utc

ACCOUNT = "acct_reseller"
WHO = CustomerFacts(
    reference=UUID(int=7),
    tenant_name="Big Customer",
    contact_name="Ada Example",
    email="ada@example.com",
    phone="+12125550100",
    line1="1 Example Street",
    line2="",
    city="New York",
    region="NY",
    postal_code="10001",
    country="US",
)
LINE = InvoiceLine(
    key="1.2026-05",
    description="Outbound minutes: 1,000 min at USD 0.012 a minute, May 2026 (UTC)",
    amount_minor=12_00,
    quantity=Decimal(60_000),
    unit="second",
    unit_price=Decimal("0.012"),
    usage_period="2026-05",
    late=False,
    usage_classes=("outbound_conversational",),
    tax_code="txcd_10000000",
)


@pytest.fixture
def gateway(sandbox: Sandbox) -> StripeGateway:
    sandbox.set_clock(utc(2026, 6, 3, 1))
    return StripeGateway("sk_test_sandbox", api_base=sandbox.url, network_retries_max=0)


def customer(gateway: StripeGateway, key: str = "customer") -> str:
    outcome = gateway.create_customer(ACCOUNT, WHO, key)
    assert isinstance(outcome, Ok)
    return outcome.value.id


def draft_facts(customer_id: str, reference: str = "ref.1", *, taxes: bool = False) -> DraftFacts:
    return DraftFacts(
        reference=reference,
        statement_id=UUID(int=9),
        customer=customer_id,
        currency="USD",
        collection="send_invoice",
        due_at=utc(2026, 7, 20),
        taxes=taxes,
    )


def draft(gateway: StripeGateway, customer_id: str, reference: str = "ref.1", *, taxes: bool = False) -> str:
    outcome = gateway.create_draft(ACCOUNT, draft_facts(customer_id, reference, taxes=taxes), reference)
    assert isinstance(outcome, Ok)
    return outcome.value


def read(gateway: StripeGateway, invoice: str) -> RemoteInvoice:
    outcome = gateway.invoice(ACCOUNT, invoice)
    assert isinstance(outcome, Ok)
    assert outcome.value is not None
    return outcome.value


@pytest.mark.parametrize("taxes", [False, True])
def test_a_draft_is_filled_read_back_and_let_go(gateway: StripeGateway, *, taxes: bool) -> None:
    who = customer(gateway)
    invoice = draft(gateway, who, taxes=taxes)
    assert isinstance(gateway.add_item(ACCOUNT, ItemFacts(who, invoice, "USD", LINE, taxes), "item"), Ok)
    before = read(gateway, invoice)
    assert (before.status, before.auto_advance, before.subtotal_minor) == ("draft", False, 12_00)
    assert (before.reference, before.tax_enabled) == ("ref.1", taxes)
    assert before.tax_status == ("complete" if taxes else None)
    lines = gateway.invoice_lines(ACCOUNT, invoice)
    assert isinstance(lines, Ok)
    assert [(line.key, line.amount_minor, line.currency) for line in lines.value] == [
        ("1.2026-05", 12_00, "USD")
    ]
    sends_at = utc(2026, 6, 20, 12)
    assert gateway.schedule(ACCOUNT, invoice, sends_at, utc(2026, 7, 20), "schedule") == Ok(None)
    after = read(gateway, invoice)
    assert (after.auto_advance, after.finalizes_at) == (True, sends_at)


def test_the_same_key_gives_the_same_draft(gateway: StripeGateway) -> None:
    who = customer(gateway)
    assert draft(gateway, who) == draft(gateway, who)


def test_a_key_with_other_content_is_spent(gateway: StripeGateway) -> None:
    who = customer(gateway)
    draft(gateway, who)
    other = replace(draft_facts(who), due_at=utc(2026, 8, 1))
    outcome = gateway.create_draft(ACCOUNT, other, "ref.1")
    assert isinstance(outcome, TemporaryFailure)
    assert outcome.key_is_spent


def test_all_pages_are_listed(gateway: StripeGateway, sandbox: Sandbox) -> None:
    who = customer(gateway)
    invoice = draft(gateway, who, "first")
    for number in range(205):
        draft(gateway, who, f"ref.{number}")
        item = ItemFacts(who, invoice, "USD", LINE.model_copy(update={"key": str(number)}), taxes=False)
        gateway.add_item(ACCOUNT, item, f"item.{number}")
    assert gateway.find_invoice(ACCOUNT, who, "first") == Ok(invoice)
    assert gateway.find_invoice(ACCOUNT, who, "never") == Ok(None)
    lines = gateway.invoice_lines(ACCOUNT, invoice)
    assert isinstance(lines, Ok)
    assert len({line.key for line in lines.value}) == 205


def test_a_customer_is_found_again_by_our_reference_alone(gateway: StripeGateway) -> None:
    assert gateway.find_customer(ACCOUNT, WHO) == Ok(None)
    made = customer(gateway)
    found = gateway.find_customer(ACCOUNT, WHO)
    assert isinstance(found, Ok)
    assert found.value is not None
    assert found.value.id == made
    assert gateway.find_customer(ACCOUNT, replace(WHO, reference=UUID(int=8))) == Ok(None)
    assert gateway.find_customer("acct_other", WHO) == Ok(None)


def test_a_deleted_draft_reads_as_none(gateway: StripeGateway, sandbox: Sandbox) -> None:
    invoice = draft(gateway, customer(gateway))
    sandbox.books(ACCOUNT).delete_invoice(invoice)
    assert gateway.invoice(ACCOUNT, invoice) == Ok(None)


def test_a_deleted_customer_is_refused_for_good(gateway: StripeGateway, sandbox: Sandbox) -> None:
    who = customer(gateway)
    sandbox.books(ACCOUNT).delete_customer(who)
    assert isinstance(gateway.customer(ACCOUNT, who), RefusedForGood)


@pytest.mark.parametrize("status", [409, 429, 500, 502, 503])
def test_trouble_on_stripes_side_is_temporary(gateway: StripeGateway, sandbox: Sandbox, status: int) -> None:
    sandbox.set_faults({"action": "status", "status": status})
    assert gateway.create_customer(ACCOUNT, WHO, "key") == TemporaryFailure(f"Stripe answered {status}")


def test_a_500_that_stripe_keeps_under_the_key_spends_it(gateway: StripeGateway, sandbox: Sandbox) -> None:
    sandbox.set_faults({"action": "status", "status": 500, "saved": True})
    assert gateway.create_customer(ACCOUNT, WHO, "key") == TemporaryFailure("Stripe answered 500")
    again = gateway.create_customer(ACCOUNT, WHO, "key")
    assert again == TemporaryFailure("Stripe answered 500", key_is_spent=True)


def test_a_permission_that_was_taken_away_is_no_refusal_of_the_request(
    gateway: StripeGateway, sandbox: Sandbox
) -> None:
    sandbox.set_faults({"action": "status", "status": 403})  # without a code that names the account as lost
    assert isinstance(gateway.create_customer(ACCOUNT, WHO, "key"), RefusedPermission)
    assert isinstance(gateway.create_customer(ACCOUNT, WHO, "key"), Ok)


def test_a_network_that_is_down_is_temporary(sandbox: Sandbox) -> None:
    nowhere = StripeGateway("sk_test_sandbox", api_base="http://127.0.0.1:9", network_retries_max=0)
    assert nowhere.create_customer(ACCOUNT, WHO, "key") == TemporaryFailure("Stripe could not be reached")


def test_an_answer_that_takes_too_long_is_temporary(sandbox: Sandbox) -> None:
    hasty = StripeGateway(
        "sk_test_sandbox", api_base=sandbox.url, network_retries_max=0, timeout_seconds=(1, 0.1)
    )
    sandbox.set_faults({"action": "slow", "seconds": 0.5})
    assert hasty.create_customer(ACCOUNT, WHO, "key") == TemporaryFailure("Stripe could not be reached")


class Notes:
    """A limiter that notes what it is asked and told."""

    def __init__(self) -> None:
        self.admitted: list[str] = []
        self.slowed_down: list[str] = []

    def admit(self, account: str) -> None:
        self.admitted.append(account)

    def slow_down(self, account: str) -> None:
        self.slowed_down.append(account)


def test_each_request_waits_its_turn_also_one_that_the_library_repeats(sandbox: Sandbox) -> None:
    notes = Notes()
    gateway = StripeGateway("sk_test_sandbox", api_base=sandbox.url, network_retries_max=2, limiter=notes)
    sandbox.set_faults({"action": "status", "status": 503})
    customer(gateway)
    assert (notes.admitted, notes.slowed_down, sandbox.requests) == ([ACCOUNT, ACCOUNT], [], 2)


def test_the_limiter_hears_when_stripe_was_asked_too_fast(sandbox: Sandbox) -> None:
    notes = Notes()
    gateway = StripeGateway("sk_test_sandbox", api_base=sandbox.url, network_retries_max=0, limiter=notes)
    sandbox.set_faults({"action": "status", "status": 429})
    gateway.create_customer(ACCOUNT, WHO, "key")
    assert notes.slowed_down == [ACCOUNT]


def test_a_request_whose_condition_fails_when_its_turn_comes_is_not_sent(sandbox: Sandbox) -> None:
    """Nor is it when the library wants to repeat it."""
    gateway = StripeGateway("sk_test_sandbox", api_base=sandbox.url, network_retries_max=2)
    sandbox.set_faults({"action": "status", "status": 503})
    with gateway.only_while(lambda: sandbox.requests == 0):
        outcome = gateway.create_customer(ACCOUNT, WHO, "key")
    assert (outcome, sandbox.requests) == (TemporaryFailure("its turn came too late"), 1)
    customer(gateway)  # afterwards, and in other threads, nothing is asked


def test_a_request_that_names_no_account_is_never_sent(gateway: StripeGateway, sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="names no Stripe account"):
        gateway.create_customer("", WHO, "key")
    assert sandbox.requests == 0


def test_an_unlinked_account_is_a_refused_permission(gateway: StripeGateway, sandbox: Sandbox) -> None:
    sandbox.books(ACCOUNT).linked = False
    assert isinstance(gateway.create_customer(ACCOUNT, WHO, "key"), RefusedPermission)


def test_a_key_of_ours_that_is_wrong_pauses_no_account_and_is_told_to_no_one(sandbox: Sandbox) -> None:
    wrong = StripeGateway("sk_wrong_secret!", api_base=sandbox.url, network_retries_max=0)
    outcome = wrong.create_customer(ACCOUNT, WHO, "key")
    assert outcome == TemporaryFailure("Stripe does not accept our API key")
    assert "secret" not in repr(wrong)


def test_the_251st_line_is_refused_for_good(gateway: StripeGateway) -> None:
    who = customer(gateway)
    invoice = draft(gateway, who)
    outcomes = [
        gateway.add_item(ACCOUNT, ItemFacts(who, invoice, "USD", LINE, taxes=False), f"item.{number}")
        for number in range(251)
    ]
    assert all(isinstance(outcome, Ok) for outcome in outcomes[:250])
    assert isinstance(outcomes[250], RefusedForGood)

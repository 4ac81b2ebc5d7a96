"""An outside step, taken once: intent, call, result (I7).

Before each step its intent and idempotency key are committed, after it Stripe's id; whoever comes after a crash repeats
it under the same key. Where that key may have been forgotten, or gives no answer any more, what was done is read from
Stripe's lists before a fresh key is used. Nothing is begun while the account is not linked (I11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Engine

from invoicing import setup_store, steps_store
from invoicing.gateway import StripeGateway
from invoicing.outcomes import Ok, Outcome, Refusal, TemporaryFailure
from invoicing.steps_store import Step
from invoicing.store import InvoiceRow

_T = TypeVar("_T")


class StoppedError(Exception):
    """A step was refused; caught where the row's state is changed for it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class TakenError(Exception):
    """Someone else moved the row meanwhile: leave it to them."""


class UnlinkedError(Exception):
    """The account is no longer linked to the Stripe account that the row is being made in: nothing more is asked."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Takes outside steps of invoices. `clock` gives the present instant (aware, UTC)."""

    engine: Engine
    gateway: StripeGateway
    clock: Callable[[], datetime]

    def take(
        self,
        row: InvoiceRow,
        name: str,
        call: Callable[[str], Outcome[str]],
        find: Callable[[], Outcome[str | None]],
    ) -> str:
        """Take a step that gives an id of Stripe's; one that was taken gives the same id again.

        Args:
            row: the invoice.
            name: the step's, unique within the invoice.
            call: asks Stripe, under the idempotency key it is given.
            find: reads from Stripe's lists what an earlier try may have done.

        Raises:
            StoppedError: Stripe refused, or did not answer.
            TakenError: someone else is at it.
            UnlinkedError: the account is not linked any more.
        """
        step = self.intend(row, [name])[name]
        if step.result is not None:
            return step.result
        age = self.clock() - step.intended_at
        if steps_store.KEY_TRUST <= age < steps_store.KEY_TRUST + steps_store.KEY_REST:
            raise StoppedError(TemporaryFailure("its key is too old to be used, too young to be replaced"))
        if age >= steps_store.KEY_TRUST:
            return self._take_afresh(row, step, call, find)
        outcome = self._call(step, call)
        if isinstance(outcome, TemporaryFailure) and outcome.key_is_spent:
            return self._take_afresh(row, step, call, find)
        return self._finish(row, step, value(outcome))

    def intend(self, row: InvoiceRow, names: Iterable[str]) -> dict[str, Step]:
        """Write steps down before they are taken, while the account is linked."""
        with self.engine.begin() as connection:
            link = setup_store.link_in_force(connection, row.account_id)
            if link is None or link.stripe_account != row.stripe_account:
                raise UnlinkedError
            return steps_store.intend(connection, row, names, self.clock())

    def renew(self, row: InvoiceRow, step: Step) -> Step:
        """Give a step a fresh key, because the old one answers no more."""
        with self.engine.begin() as connection:
            renewed = steps_store.renew_key(connection, row, step, self.clock())
        if renewed is None:
            raise TakenError
        return renewed

    def _take_afresh(
        self,
        row: InvoiceRow,
        step: Step,
        call: Callable[[str], Outcome[str]],
        find: Callable[[], Outcome[str | None]],
    ) -> str:
        found = value(find())
        if found is not None:
            return self._finish(row, step, found)
        renewed = self.renew(row, step)
        return self._finish(row, renewed, value(self._call(renewed, call)))

    def _call(self, step: Step, call: Callable[[str], Outcome[str]]) -> Outcome[str]:
        """Ask under the step's key, unless so long was waited or slept that the key protects nothing any more."""
        with self.gateway.only_while(lambda: self._is_trusted(step)):
            return call(step.idempotency_key)

    def _is_trusted(self, step: Step) -> bool:
        return self.clock() - step.intended_at < steps_store.KEY_TRUST

    def _finish(self, row: InvoiceRow, step: Step, result: str) -> str:
        with self.engine.begin() as connection:
            if steps_store.finish_step(connection, row, step, result, self.clock()):
                return result
            settled = steps_store.steps(connection, row)[step.name].result
        if settled is None:
            raise TakenError
        return settled


def value(outcome: Outcome[_T]) -> _T:
    """What Stripe gave back.

    Raises:
        StoppedError: it gave nothing back.
    """
    if isinstance(outcome, Ok):
        return outcome.value
    raise StoppedError(outcome)

"""Failures on demand: which requests fail, how, and how often."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

Action = Literal["status", "reset", "slow"]


@dataclass(slots=True)
class Fault:
    """One rule of the script.

    `method` and `account` (empty: any) and `path` (a regular expression, searched) say which requests it is about; it
    lets `skip` of them pass, then befalls `times` of them (None: all), each with probability `rate`. `action`: answer with `status`,
    `reset` the connection, or be `slow` by `seconds`. `commit`: the request takes effect first, and only its answer is
    lost or late. `saved`: the failure becomes the idempotency key's answer, as Stripe does with a 500. `should_retry`:
    the answer says so in `Stripe-Should-Retry`.
    """

    action: Action
    method: str = "POST"
    path: str = ""
    account: str = ""
    skip: int = 0
    times: int | None = 1
    rate: float = 1.0
    status: int = 500
    seconds: float = 0.0
    commit: bool = False
    saved: bool = False
    should_retry: bool | None = None

    def is_about(self, method: str, path: str, account: str) -> bool:
        """Whether a request is one of those it may befall."""
        named = self.method in {"", method} and self.account in {"", account}
        return named and re.search(self.path, path) is not None

    @property
    def comes_first(self) -> bool:
        """It befalls the request before that has any effect."""
        return self.action != "slow" and not self.commit

    @property
    def loses_answer(self) -> bool:
        """The request takes effect, and whoever made it is told something else or nothing."""
        return self.action != "slow" and self.commit

    @property
    def name(self) -> str:
        """What people call it: `reset after the commit`, `429 with should-retry`."""
        words = [str(self.status) if self.action == "status" else self.action]
        words += [f"by {self.seconds:g} s"] * (self.action == "slow")
        if self.should_retry is not None:
            words.append(f"with should-retry {str(self.should_retry).lower()}")
        words += ["kept"] * self.saved + ["after the commit"] * self.commit
        return " ".join(words)


class FaultScript:
    """The rules in force, first match first. Not thread-safe: the server asks under its lock."""

    def __init__(self, seed: int = 0) -> None:
        self.dealt: Counter[str] = Counter()
        self._faults: list[Fault] = []
        self._dice = random.Random(seed)  # noqa: S311 (repeatable faults, no secrets)

    def replace(self, faults: list[dict[str, Any]], seed: int = 0) -> None:
        """Put a new script in the place of the old one.

        Raises:
            TypeError: a rule has an unknown field.
        """
        self._faults = [Fault(**fault) for fault in faults]
        self._dice = random.Random(seed)  # noqa: S311 (same)

    def next_for(self, method: str, path: str, account: str) -> Fault | None:
        """What befalls this request; None: nothing."""
        for fault in self._faults:
            if fault.times == 0 or not fault.is_about(method, path, account):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if self._dice.random() >= fault.rate:
                continue
            if fault.times is not None:
                fault.times -= 1
            self.dealt[fault.name] += 1
            return fault
        return None

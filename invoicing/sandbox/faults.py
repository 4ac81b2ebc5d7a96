"""Failures on demand: which requests fail, how, and how often."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any, Literal

Action = Literal["status", "reset", "slow"]


@dataclass(slots=True)
class Fault:
    """One rule of the script.

    `method` and `path` (a regular expression, searched) say which requests it is about; it lets `skip` of them pass,
    then befalls `times` of them (None: all), each with probability `rate`. `action`: answer with `status`, `reset` the
    connection, or be `slow` by `seconds`. `commit`: the request takes effect first, and only its answer is lost. `saved`:
    the failure becomes the idempotency key's answer, as Stripe does with a 500.
    """

    action: Action
    method: str = "POST"
    path: str = ""
    skip: int = 0
    times: int | None = 1
    rate: float = 1.0
    status: int = 500
    seconds: float = 0.0
    commit: bool = False
    saved: bool = False


class FaultScript:
    """The rules in force, first match first. Not thread-safe: the server asks under its lock."""

    def __init__(self, seed: int = 0) -> None:
        self._faults: list[Fault] = []
        self._dice = random.Random(seed)  # noqa: S311 (repeatable faults, no secrets)

    def replace(self, faults: list[dict[str, Any]], seed: int = 0) -> None:
        """Put a new script in the place of the old one.

        Raises:
            TypeError: a rule has an unknown field.
        """
        self._faults = [Fault(**fault) for fault in faults]
        self._dice = random.Random(seed)  # noqa: S311 (same)

    def next_for(self, method: str, path: str) -> Fault | None:
        """What befalls this request; None: nothing."""
        for fault in self._faults:
            if fault.method != method or not re.search(fault.path, path) or fault.times == 0:
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if self._dice.random() >= fault.rate:
                continue
            if fault.times is not None:
                fault.times -= 1
            return fault
        return None

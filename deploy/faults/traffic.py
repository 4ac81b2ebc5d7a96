"""What a carrier sends during the campaign, and what must become of it: known by intent, no rule of the product is asked.

Everything is drawn from the seed. Money and seconds are Decimals. A duplicate of a record goes out right behind it, or
batches later, or months of the ledger later, to any partition; what contradicts a record follows it in its partition.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from deploy.faults.world_store import LINES, Line
from schemas.periods import Period

CALLS: Final = "calls.raw"
SIP: Final = "sip.raw"
PARTITIONS: Final = {CALLS: 8, SIP: 4}
_remembered_max: Final = 5000


class Usage(NamedTuple):
    """What one accepted record is in the ledger."""

    account: str | None
    tenant: str | None
    usage_class: str
    month: str
    answered: bool
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal


class Message(NamedTuple):
    """One message, and the partition it goes to."""

    topic: str
    partition: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Sent:
    """A record that was accepted, and may be sent again."""

    partition: int
    value: bytes


class Traffic:
    """Makes messages, a story at a time, and remembers what they must come to."""

    def __init__(self, seed: int, months: Sequence[Period]) -> None:
        self.usage: dict[str, Usage] = {}
        self.others: Counter[tuple[str, str]] = Counter()
        self._dice = random.Random(seed)  # noqa: S311 (repeatable, no secrets)
        self._months = months
        self._number = 0
        self._partition = 0
        self._remembered: list[Sent] = []
        kinds: tuple[tuple[int, Callable[[], Iterator[Message]]], ...] = (
            (30, self._inbound),
            (12, self._dedicated),
            (12, self._shared),
            (8, self._waiting),
            (2, self._never_told),
            (3, self._nobodys),
            (2, self._unanswered),
            (4, self._at_midnight),
            (3, self._contradicted),
            (3, self._unreadable),
            (1, self._implausible),
            (1, self._ignored),
            (14, self._again),
        )
        self._kinds = [kind for _, kind in kinds]
        self._weights = [weight for weight, _ in kinds]

    def stories(self, count: int) -> Iterator[Message]:
        """The messages of the next stories, in the order they are to be sent."""
        for kind in self._dice.choices(self._kinds, self._weights, k=count):
            yield from kind()

    def _inbound(self) -> Iterator[Message]:
        line = self._line()
        record = self._record("inbound", line, to_number=line.number)
        yield from self._accepted(record, line, "inbound_conversational")

    def _dedicated(self) -> Iterator[Message]:
        line = self._line()
        abroad = self._dice.random() < 0.3
        to_number = "+442071838750" if abroad else "+12125550199"
        record = self._record(
            "outbound", line, to_number=to_number, source_ip=line.own_ip, x_tenant="spoofed.example.com"
        )
        yield from self._accepted(
            record, line, "outbound_international" if abroad else "outbound_conversational"
        )

    def _shared(self) -> Iterator[Message]:
        line = self._line()
        record = self._record(
            "outbound", line, to_number="+12125550199", source_ip=line.shared_ip, x_tenant=line.tenant
        )
        yield from self._accepted(record, line, "outbound_conversational")

    def _waiting(self) -> Iterator[Message]:
        """A call without its header, whose INVITE comes before or after it."""
        line = self._line()
        record = self._record("outbound", line, to_number="+12125550199", source_ip=line.shared_ip)
        invite = {
            "switch": "sbc-1",
            "observed_at": record["started_at"],
            "source_ip": line.shared_ip,
            "call_id": record["call_id"],
            "method": "INVITE",
            "cseq": 1,
            "headers": {"X-Tenant": line.tenant},
        }
        self.others["context", ""] += 1
        told = Message(SIP, self._dice.randrange(PARTITIONS[SIP]), _bytes(invite))
        calls = self._accepted(record, line, "outbound_conversational", resent_elsewhere=False)
        yield from ([told, *calls] if self._dice.random() < 0.6 else [*calls, told])

    def _never_told(self) -> Iterator[Message]:
        line = self._line()._replace(tenant="")
        record = self._record("outbound", line, to_number="+12125550199", source_ip=line.shared_ip)
        yield from self._accepted(record, line, "outbound_conversational", resent_elsewhere=False)

    def _nobodys(self) -> Iterator[Message]:
        line = self._line()._replace(account="", tenant="", currency="USD")
        record = self._record("inbound", line, to_number="+12125550777")
        yield from self._accepted(record, line, "inbound_conversational")

    def _unanswered(self) -> Iterator[Message]:
        line = self._line()
        record = self._record("inbound", line, to_number=line.number) | {
            "answered_at": None,
            "answered_seconds": "0",
            "billed_seconds": 0,
            "cost": "0",
        }
        yield from self._accepted(record, line, "inbound_conversational")

    def _at_midnight(self) -> Iterator[Message]:
        """A call that starts seconds before a midnight, often a month's end, and its resend with a clock that moved over it."""
        line = self._line()
        day = self._month().ends_at if self._dice.random() < 0.5 else self._started_at()
        midnight = day.replace(hour=0, minute=0, second=0, microsecond=0)
        before, after = (
            midnight - timedelta(seconds=self._dice.randint(1, 200)),
            midnight + timedelta(seconds=2),
        )
        if not self._within(before) or not self._within(after):
            return
        first, second = (before, after) if self._dice.random() < 0.5 else (after, before)
        record = self._record("inbound", line, to_number=line.number)
        moved = record | {"started_at": second.isoformat(), "answered_at": second.isoformat()}
        record |= {"started_at": first.isoformat(), "answered_at": first.isoformat()}
        yield from self._accepted(record, line, "inbound_conversational", resent_elsewhere=False)
        yield self._quarantined(_bytes(moved), "conflicting_duplicate")

    def _contradicted(self) -> Iterator[Message]:
        line = self._line()
        record = self._record("inbound", line, to_number=line.number)
        yield from self._accepted(record, line, "inbound_conversational", resent_elsewhere=False)
        yield self._quarantined(_bytes(record | {"cost": "99.99"}), "conflicting_duplicate")

    def _unreadable(self) -> Iterator[Message]:
        line = self._line()
        record = _bytes(self._record("inbound", line, to_number=line.number))
        damaged = self._dice.choice(
            (
                record[: len(record) // 2],
                b"\xff\xfe",
                b"[]",
                record.replace(b'"cost": "', b'"cost": 1.5, "x": "'),
            )
        )
        self._partition = self._dice.randrange(PARTITIONS[CALLS])
        yield self._quarantined(damaged, "unreadable")

    def _implausible(self) -> Iterator[Message]:
        line = self._line()
        record = self._record("inbound", line, to_number=line.number) | {"answered_seconds": "-1"}
        self._partition = self._dice.randrange(PARTITIONS[CALLS])
        yield self._quarantined(_bytes(record), "implausible")

    def _ignored(self) -> Iterator[Message]:
        self.others["ignored", "tombstone"] += 1
        yield Message(CALLS, self._dice.randrange(PARTITIONS[CALLS]), None)

    def _again(self) -> Iterator[Message]:
        """Resends of what was sent long ago, to the same partition or another."""
        for sent in self._dice.sample(self._remembered, min(len(self._remembered), 3)):
            partition = (
                sent.partition if self._dice.random() < 0.3 else self._dice.randrange(PARTITIONS[CALLS])
            )
            self.others["duplicate", ""] += 1
            yield Message(CALLS, partition, sent.value)

    def _record(self, direction: str, line: Line, **fields: object) -> dict[str, Any]:
        self._number += 1
        name, started_at = f"record-{self._number:07}", self._started_at()
        seconds = self._dice.randint(6, 600)
        return {
            "id": name,
            "switch": "sbc-1",
            "service": "call",
            "direction": direction,
            "call_id": f"{name}@example.com",
            "from_number": "+12125550150",
            "started_at": started_at.isoformat(),
            "answered_at": started_at.isoformat(),
            "answered_seconds": f"{seconds}.{self._dice.randint(0, 999):03}",
            "billed_seconds": seconds,
            "cost": f"{self._dice.randint(1, 99_999) / 100_000:.6f}",
            "currency": line.currency,
            **fields,
        }

    def _accepted(
        self, record: dict[str, Any], line: Line, usage_class: str, *, resent_elsewhere: bool = True
    ) -> Iterator[Message]:
        """A record that is to be posted once, and perhaps some copies right behind it."""
        self.usage[record["id"]] = Usage(
            line.account or None,
            line.tenant or None,
            usage_class,
            record["started_at"][:7],
            record["answered_at"] is not None,
            Decimal(record["answered_seconds"]),
            record["billed_seconds"],
            Decimal(record["cost"]),
        )
        value = _bytes(record)
        self._partition = self._dice.randrange(PARTITIONS[CALLS])
        yield Message(CALLS, self._partition, value)
        for _ in range(self._dice.choice((0, 0, 0, 0, 0, 1, 1, 2, 20 if self._dice.random() < 0.05 else 1))):
            self.others["duplicate", ""] += 1
            yield Message(CALLS, self._partition, value)
        if resent_elsewhere:
            self._remember(Sent(self._partition, value))

    def _quarantined(self, value: bytes, reason: str) -> Message:
        self.others["quarantined", reason] += 1
        return Message(CALLS, self._partition, value)

    def _remember(self, sent: Sent) -> None:
        if len(self._remembered) < _remembered_max:
            self._remembered.append(sent)
        else:
            self._remembered[self._dice.randrange(_remembered_max)] = sent

    def _line(self) -> Line:
        return self._dice.choice(LINES)

    def _month(self) -> Period:
        return self._dice.choice(self._months)

    def _started_at(self) -> datetime:
        month = self._month()
        return month.starts_at + timedelta(
            seconds=self._dice.randrange(int((month.ends_at - month.starts_at).total_seconds()) - 1000) + 500,
            milliseconds=self._dice.randrange(1000),
        )

    def _within(self, instant: datetime) -> bool:
        return self._months[0].starts_at <= instant < self._months[-1].ends_at


def _bytes(record: dict[str, Any]) -> bytes:
    return json.dumps({name: value for name, value in record.items() if value is not None}).encode()

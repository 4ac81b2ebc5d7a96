"""The pen that stories are written with: dice, serial numbers, and the count of what each message must become."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from ipaddress import ip_network
from typing import Any, Final

import orjson

from deploy.sample.calls import SWITCH, Rating, Talk, rated_by_tariff
from deploy.sample.carrier import RESELLER, SampleCarrier, SampleTariff, SampleTenant
from deploy.sample.expected import CALLS_TOPIC, SIP_TOPIC, Expected, Group, Owner, Sent

_unanswered_share: Final = 0.12
_abroad_share: Final = 0.12  # of the second account
_rated_by_switch_share: Final = 0.6
_busiest_hours: Final = (8, 19)


class Writer:
    """Writes call records and SIP messages, and notes in `expected` what they must become."""

    def __init__(self, carrier: SampleCarrier, seed: int) -> None:
        self.carrier = carrier
        self.dice = random.Random(seed)  # noqa: S311 (a sample, not a secret)
        self.expected = Expected()
        self.late = False
        self.standing: list[tuple[datetime, Sent]] = []  # posted records, which a switch may send again

    def posted(
        self,
        owner: Owner,
        usage_class: str,
        talk: Talk | None = None,
        *,
        prefix: str = "",
        reason: str | None = None,
        **fields: Any,  # noqa: ANN401 (fields of a record)
    ) -> tuple[datetime, Sent]:
        """A record that must be posted to an owner, with its costs as sent or by the account's tariff."""
        talk = talk or self.talk()
        rating, rating_fields = self._rating(owner, usage_class, prefix, talk.seconds)
        usage = self.expected.late_usage if self.late else self.expected.usage
        usage[owner].add(talk.seconds, rating)
        self.expected.outcomes["posted", ""] += 1
        if reason:
            self.expected.unattributed[reason] += 1
        times = talk.fields(says_seconds=self.dice.random() < 0.7)
        sent = self.record({**times, **rating_fields, **fields})
        self.standing.append((talk.ended_at, sent))
        return talk.ended_at, sent

    def record(self, fields: dict[str, Any]) -> Sent:
        """A record on the calls topic, with an id of its own unless the fields give one."""
        record_id = self.new_id()
        said = {
            "id": record_id,
            "switch": SWITCH,
            "service": "call",
            "call_id": f"{record_id}@example.com",
            "from_number": f"+1303555{self.dice.randrange(100, 200):04d}",
            **fields,
        }
        present = {name: value for name, value in said.items() if value is not None}
        return Sent(CALLS_TOPIC, said["call_id"].encode(), orjson.dumps(present))

    def sip(self, message: dict[str, Any], outcome: tuple[str, str] = ("context", "")) -> Sent:
        """A message on the SIP topic."""
        self.expected.outcomes[outcome] += 1
        key = str(message.get("call_id") or self.new_id())
        return Sent(SIP_TOPIC, key.encode(), orjson.dumps(message))

    def quarantined(self, reason: str, sent: Sent, at: datetime) -> Group:
        """A message that must end in quarantine."""
        self.expected.outcomes["quarantined", reason] += 1
        return Group(at, [sent])

    def new_id(self) -> str:
        """Sixteen hexadecimal digits nobody had yet."""
        return f"{self.dice.getrandbits(64):016x}"

    def moment(self, since: datetime | None = None, until: datetime | None = None) -> datetime:
        """An instant of the month, to the millisecond, mostly in working hours."""
        first, last = since or self.carrier.period.starts_at, until or self.carrier.period.ends_at
        milliseconds = (last - first) // timedelta(milliseconds=1)
        for _ in range(4):
            at = first + timedelta(milliseconds=self.dice.randrange(milliseconds))
            if _busiest_hours[0] <= at.hour < _busiest_hours[1]:
                break
        return at

    def talk(
        self,
        started_at: datetime | None = None,
        seconds: Decimal | None = None,
        *,
        answered: bool | None = None,
    ) -> Talk:
        """A call of some minutes, or of the given seconds; one in eight is not answered."""
        if answered is None:
            answered = seconds is not None or self.dice.random() >= _unanswered_share
        if seconds is None:
            seconds = Decimal(6_000 + int(self.dice.expovariate(1 / 150_000))).scaleb(-3)
        ringing = timedelta(milliseconds=self.dice.randrange(500, 25_000))
        return Talk(
            started_at or self.moment(), ringing, min(seconds, Decimal(7200)) if answered else Decimal(0)
        )

    def tenant(self, of: Callable[[SampleTenant], object] = lambda _: True) -> SampleTenant:
        """A tenant that existed all month and fits, by its share of the traffic."""
        abroad = self.dice.random() < _abroad_share
        existed = [each for each in self.carrier.tenants if each.code != self.carrier.newcomer]
        fitting = [each for each in existed if each.share and of(each)]
        chosen = [each for each in fitting if (each.account != RESELLER) is abroad] or fitting
        return self.dice.choices(chosen, [each.share for each in chosen])[0]

    def dedicated_ip(self, tenant: SampleTenant) -> str:
        """One of a tenant's own addresses; sometimes an IPv4 address written as IPv6."""
        network = ip_network(self.dice.choice(tenant.dedicated))
        address = network[self.dice.randrange(min(network.num_addresses, 8))]
        return f"::ffff:{address}" if address.version == 4 and self.dice.random() < 0.1 else str(address)

    def _rating(
        self, owner: Owner, usage_class: str, prefix: str, seconds: Decimal
    ) -> tuple[Rating, dict[str, Any]]:
        tariff = self._tariff(owner, usage_class, prefix)
        rating = rated_by_tariff(seconds, tariff)
        if self.dice.random() >= _rated_by_switch_share:
            return rating, {}
        if rating.cost:
            rating = Rating(rating.billed_seconds, Decimal(self.dice.randrange(1, 800)).scaleb(-4))
        return rating, rating.fields(self._currency(owner))

    def _tariff(self, owner: Owner, usage_class: str, prefix: str) -> SampleTariff | None:
        """What the switch's owner charges for it; the sample never has two that fit."""
        return next(
            (
                each
                for each in self.carrier.tariffs
                if (each.account, each.usage_class, each.prefix) == (owner.account, usage_class, prefix)
            ),
            None,
        )

    def _currency(self, owner: Owner) -> str:
        return next((each.currency for each in self.carrier.accounts if each.code == owner.account), "USD")

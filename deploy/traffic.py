"""A month of a carrier's traffic, and what each message must become.

Everything is drawn from one seed. Each kind of call is written together with what was meant by it, so the expected
counts and totals come from intent: no rule of the product is asked. Kinds that go wrong on purpose (resends, spoofed
headers, broken JSON, …) come a few times even in a small month.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from deploy.sample.carrier import SampleCarrier
from deploy.sample.expected import Expected, Group
from deploy.sample.oddities import Oddities
from deploy.sample.stories import Stories
from deploy.sample.writer import Writer

calls_min: Final = 200
_times_min: Final = 2
_PARTS: Final = 10_000
_LATE_PARTS: Final = 10
_UNHEARD_INVITES: Final = 2

Story = Callable[[], Group]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Groups of messages in the order they are sent; `late` is sent once the month is closed."""

    month: Sequence[Group]
    late: Sequence[Group]
    expected: Expected


def generate(carrier: SampleCarrier, calls: int, seed: int) -> Traffic:
    """About so many call records, `calls_min` at least, and the SIP events that go with them."""
    calls = max(calls, calls_min)
    writer = Writer(carrier, seed)
    stories = Stories(writer)
    oddities = Oddities(stories)
    month = _written([*_ordinary(stories), *_wrong(oddities)], calls)
    month += _written([(oddities.resent, 150), (oddities.contradicted, 20)], calls)
    month.sort(key=lambda group: group.at)
    writer.late = True
    late = _written(_late(stories, oddities), calls) + oddities.unheard_invites(_UNHEARD_INVITES)
    return Traffic(month, late, writer.expected)


def _written(plan: Sequence[tuple[Story, int]], calls: int) -> list[Group]:
    return [story() for story, parts in plan for _ in range(max(_times_min, calls * parts // _PARTS))]


def _ordinary(stories: Stories) -> Iterator[tuple[Story, int]]:
    """Each kind of ordinary traffic, and its parts in ten thousand."""
    yield stories.inbound, 3100
    yield stories.inbound_toll_free, 400
    yield stories.caller_id_lookup, 500
    yield stories.spam_prevention, 300
    yield stories.from_dedicated, 1750
    yield stories.from_shared, 1550
    yield stories.recording, 200
    yield stories.international, 250
    yield stories.short_duration, 150
    yield stories.toll_free, 150
    yield stories.emergency, 30
    yield stories.on_net, 100
    yield stories.invite_first, 350
    yield stories.invite_after, 250
    yield stories.invite_as_text, 100
    yield stories.authentication_retry, 120
    yield stories.source_from_invite, 60
    yield stories.moved_number, 60
    yield stories.newcomer_number, 60
    yield stories.spare_number, 60
    yield stories.to_default_tenant, 40
    yield stories.without_header, 30
    yield stories.no_source, 10
    yield stories.two_sources, 10
    yield stories.last_instant, 1
    yield stories.tiny_call, 1


def _wrong(oddities: Oddities) -> Iterator[tuple[Story, int]]:
    """The same for what goes wrong."""
    yield oddities.spoofed, 60
    yield oddities.unknown_tenant, 30
    yield oddities.wrong_case, 20
    yield oddities.before_it_existed, 10
    yield oddities.unknown_number, 50
    yield oddities.unknown_ip, 50
    for unreadable in (oddities.not_json, oddities.without_id, oddities.bad_address, oddities.float_cost):
        yield unreadable, 8
    for refused in (oddities.ends_too_soon, oddities.wrong_currency, oddities.too_old, oddities.unpriced):
        yield refused, 6
    yield oddities.broken_sip, 5
    yield oddities.tombstone, 5
    yield oddities.register, 200
    yield oddities.within_dialog, 40
    yield oddities.response, 40


def _late(stories: Stories, oddities: Oddities) -> Sequence[tuple[Story, int]]:
    """What still comes when the month is closed."""
    kinds = (
        *(stories.inbound, stories.from_dedicated, stories.from_shared, stories.invite_first),
        *(oddities.unknown_number, oddities.resent),
    )
    return [(kind, _LATE_PARTS) for kind in kinds]

"""Traffic that goes wrong on purpose, each kind with what must become of it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import orjson

from deploy.sample.calls import Talk, invite, sip_text, wire_time
from deploy.sample.carrier import ABROAD, RESELLER
from deploy.sample.expected import CALLS_TOPIC, NOBODY, Group, Owner, Sent
from deploy.sample.stories import Stories, owner_of

_UNOWNED_NUMBER: Final = "+12125550198"
_UNOWNED_IP: Final = "203.0.113.200"
_UNPRICED_NUMBER: Final = "+33199001234"
_TALKS: Final = "outbound_conversational"


class Oddities:
    """Each method writes one group of messages."""

    def __init__(self, stories: Stories) -> None:
        self.stories = stories
        self.writer = stories.writer
        self.carrier = stories.carrier
        self.dice = stories.dice

    # --- whose it is not

    def spoofed(self) -> Group:
        """A header on a dedicated address that names someone else: ignored, and shown."""
        tenant = self.writer.tenant(lambda each: each.dedicated)
        named = self.dice.choice([each.code for each in self.carrier.tenants if each.code != tenant.code])
        self.writer.expected.headers_ignored[named] += 1
        return self._out(owner_of(tenant), source_ip=self.writer.dedicated_ip(tenant), x_tenant=named)

    def unknown_tenant(self) -> Group:
        """A header that names nobody, or another account's tenant: no quiet fallback."""
        name = self.dice.choice(["no-such-tenant", "hafen.example.de"])
        return self._unknown(name, self.stories.shared_ip(RESELLER))

    def wrong_case(self) -> Group:
        """An Account ID is matched exactly."""
        return self._unknown("BigCustomer.mypbx.com", self.stories.shared_ip(RESELLER))

    def before_it_existed(self) -> Group:
        """A header that names a tenant made later in the month."""
        at = self.writer.moment(until=self.carrier.newcomer_at)
        return self._unknown(self.carrier.newcomer, self.stories.shared_ip(RESELLER), self.writer.talk(at))

    def unknown_number(self) -> Group:
        """Nobody's number: the carrier's own unowned bucket."""
        fields: dict[str, Any] = {"direction": "inbound", "to_number": _UNOWNED_NUMBER}
        at, sent = self.writer.posted(
            NOBODY, "inbound_conversational", reason="number_not_assigned", **fields
        )
        return Group(at, [sent])

    def unknown_ip(self) -> Group:
        """Nobody's address, whatever its header says."""
        return self._out(NOBODY, source_ip=_UNOWNED_IP, x_tenant="acme.example.com", reason="ip_not_assigned")

    # --- what cannot be read

    def not_json(self) -> Group:
        """Cut off in the middle."""
        at, sent = self._good_record()
        return self.writer.quarantined("unreadable", sent._replace(value=(sent.value or b"")[:-20]), at)

    def without_id(self) -> Group:
        """A required field is missing."""
        return self._spoilt("unreadable", id=None)

    def bad_address(self) -> Group:
        """No such address."""
        return self._spoilt("unreadable", source_ip="192.0.2.300")

    def float_cost(self) -> Group:
        """Money as a JSON number has lost its cents."""
        return self._spoilt("unreadable", cost=0.498, currency="USD")

    def broken_sip(self) -> Group:
        """A SIP message without a start line."""
        at = self.writer.moment()
        message = {
            "switch": "sbc-nyc-1",
            "observed_at": wire_time(at),
            "source_ip": "192.0.2.10",
            "raw": "hello",
        }
        return Group(at, [self.writer.sip(message, ("quarantined", "unreadable"))])

    # --- what must not be posted

    def ends_too_soon(self) -> Group:
        """Ended before it was answered."""
        return self._spoilt("implausible", ended_at="2026-01-01T00:00:00Z")

    def wrong_currency(self) -> Group:
        """Not the account's currency."""
        return self._spoilt("implausible", currency="GBP", cost="0.01")

    def too_old(self) -> Group:
        """Started before the ledger's first month."""
        at = self.carrier.period.starts_at - timedelta(hours=self.dice.randrange(1, 300))
        return self._spoilt("too_old", Talk(at, timedelta(seconds=5), Decimal(60)))

    def unpriced(self) -> Group:
        """No cost was sent, and there is no tariff for that country yet."""
        return self._spoilt("unrated", to_number=_UNPRICED_NUMBER)

    def contradicted(self) -> Group:
        """A posted record's id comes again with another bill: the first stands."""
        at, sent = self.dice.choice(self.writer.standing)
        record = orjson.loads(sent.value or b"")
        record["billed_seconds"] = record.get("billed_seconds", 0) + 600
        later = at + timedelta(seconds=self.dice.randrange(60, 7200))
        changed = sent._replace(value=orjson.dumps(record))
        return self.writer.quarantined("conflicting_duplicate", changed, later)

    # --- what is no usage

    def resent(self) -> Group:
        """A posted record once more, byte by byte."""
        at, sent = self.dice.choice(self.writer.standing)
        self.writer.expected.outcomes["duplicate", ""] += 1
        return Group(at + timedelta(seconds=self.dice.randrange(1, 7200)), [sent])

    def tombstone(self) -> Group:
        """A message without a value."""
        self.writer.expected.outcomes["ignored", "tombstone"] += 1
        return Group(self.writer.moment(), [Sent(CALLS_TOPIC, self.writer.new_id().encode(), None)])

    def register(self) -> Group:
        """A telephone says where it is."""
        at = self.writer.moment()
        message = invite(self.writer.new_id(), "198.51.100.20", at, None, method="REGISTER")
        return Group(at, [self.writer.sip(message, ("ignored", "sip_not_invite"))])

    def within_dialog(self) -> Group:
        """An INVITE within a call (it has a To tag) begins none."""
        at = self.writer.moment()
        message = invite(self.writer.new_id(), "198.51.100.20", at, "foxglove", cseq=3, to_tag="t1")
        return Group(at, [self.writer.sip(message, ("ignored", "sip_not_initial"))])

    def response(self) -> Group:
        """An answer to a request."""
        at = self.writer.moment()
        message = sip_text(self.writer.new_id(), "198.51.100.20", at, "SIP/2.0 200 OK", None)
        return Group(at, [self.writer.sip(message, ("ignored", "sip_response"))])

    def unheard_invites(self, calls_max: int) -> list[Group]:
        """INVITEs of calls that were decided without them long ago: kept, and nothing changes."""
        return [
            Group(at, [self.writer.sip(invite(call_id, source, at, "foxglove"))])
            for call_id, at, source in self.stories.unheard[:calls_max]
        ]

    # --- how they are written

    def _out(self, owner: Owner, talk: Talk | None = None, **fields: Any) -> Group:  # noqa: ANN401 (fields of a record)
        facts = {"direction": "outbound", "to_number": self._domestic(owner), **fields}
        at, sent = self.writer.posted(owner, _TALKS, talk, **facts)
        return Group(at, [sent])

    def _unknown(self, name: str, source_ip: str, talk: Talk | None = None) -> Group:
        fields: dict[str, Any] = {"source_ip": source_ip, "x_tenant": name, "reason": "unknown_tenant"}
        return self._out(Owner(RESELLER, None), talk, **fields)

    def _domestic(self, owner: Owner) -> str:
        pattern = "+4930231250{:02d}" if owner.account == ABROAD else "+14155551{:02d}"
        return pattern.format(self.dice.randrange(10, 90))

    def _good_record(self, talk: Talk | None = None, **fields: Any) -> tuple[Any, Sent]:  # noqa: ANN401 (same)
        talk = talk or self.writer.talk(answered=True)
        route = {"direction": "outbound", "to_number": "+14155550150", "source_ip": "192.0.2.10"}
        return talk.ended_at, self.writer.record({**talk.fields(says_seconds=True), **route, **fields})

    def _spoilt(self, reason: str, talk: Talk | None = None, **fields: Any) -> Group:  # noqa: ANN401 (same)
        at, sent = self._good_record(talk, **fields)
        return self.writer.quarantined(reason, sent, at)

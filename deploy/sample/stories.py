"""Ordinary traffic, kind by kind, each written together with whose it is."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

from deploy.sample.calls import Talk, invite, sip_text
from deploy.sample.carrier import (
    ABROAD,
    DEFAULT_TENANT,
    RESELLER,
    SHARED_IPV6,
    SHARED_WITH_DEFAULT,
    SHARED_WITHOUT_DEFAULT,
    SampleCarrier,
    SampleTenant,
)
from deploy.sample.expected import NOBODY, Group, Owner, Sent
from deploy.sample.writer import Writer

_NEW_YORK: Final = timezone(timedelta(hours=-4))
_DOMESTIC: Final = {RESELLER: ("+1415555{:04d}", "+1787555{:04d}"), ABROAD: ("+49302312{:04d}",)}
_INTERNATIONAL: Final = {
    RESELLER: (("44", "+44207946{:04d}"), ("1876", "+1876555{:04d}")),
    ABROAD: (("44", "+44207946{:04d}"), ("1212", "+1212555{:04d}")),
}
_EMERGENCY: Final = {RESELLER: ("911", "933"), ABROAD: ("112",)}
_TALKS: Final = "outbound_conversational"


class Stories:
    """Each method writes one group of messages."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.carrier: SampleCarrier = writer.carrier
        self.dice = writer.dice
        self.unheard: list[
            tuple[str, datetime, str]
        ] = []  # Call-ID, start and source of calls decided without INVITE

    # --- inbound: the called number decides (A2)

    def inbound(self) -> Group:
        """A call to a tenant's number; where it was routed says nothing, even another tenant's address."""
        tenant = self.writer.tenant(lambda each: each.local)
        number = self.dice.choice(tenant.local)
        if tenant.account == RESELLER and self.dice.random() < 0.05:
            number = f"({number[2:5]}) {number[5:8]}-{number[8:]}"
        elsewhere: dict[str, Any] = {"source_ip": "192.0.2.10"} if self.dice.random() < 0.2 else {}
        return self._to(owner_of(tenant), number, "inbound_conversational", **elsewhere)

    def inbound_toll_free(self) -> Group:
        """A call to a toll-free number."""
        tenant = self.writer.tenant(lambda each: each.toll_free)
        return self._to(owner_of(tenant), self.dice.choice(tenant.toll_free), "inbound_toll_free")

    def caller_id_lookup(self) -> Group:
        """A service event for the called number's tenant."""
        return self._service("caller_id_lookup")

    def spam_prevention(self) -> Group:
        """Another one."""
        return self._service("spam_prevention")

    def moved_number(self) -> Group:
        """A number that went from one tenant to another in mid-month: each keeps its own calls."""
        talk = self.writer.talk()
        tenant = DEFAULT_TENANT if talk.started_at < self.carrier.moved_at else "blue-harbor"
        return self._to(Owner(RESELLER, tenant), self.carrier.moved_number, "inbound_conversational", talk)

    def newcomer_number(self) -> Group:
        """A number of the account's until its tenant was made."""
        talk = self.writer.talk()
        if talk.started_at < self.carrier.newcomer_at:
            return self._to_unassigned(self.carrier.newcomer_number, talk)
        owner = Owner(RESELLER, self.carrier.newcomer)
        return self._to(owner, self.carrier.newcomer_number, "inbound_conversational", talk)

    def spare_number(self) -> Group:
        """A number that was given to no tenant: the account's unassigned usage."""
        return self._to_unassigned(self.carrier.spare_number, self.writer.talk())

    def tiny_call(self) -> Group:
        """A tenant with next to no usage: its invoice costs its account a phantom fee."""
        tenant = self.carrier.tenant("tiny.example.com")
        return self._to(owner_of(tenant), tenant.local[0], "inbound_conversational")

    # --- outbound: the source decides (A3 to A5)

    def from_dedicated(self) -> Group:
        """A call from a tenant's own address, whose header, if any, agrees."""
        tenant = self.writer.tenant(lambda each: each.dedicated)
        header = {"x_tenant": tenant.code} if self.dice.random() < 0.3 else {}
        return self._from(owner_of(tenant), self.writer.dedicated_ip(tenant), **header)

    def from_shared(self) -> Group:
        """A call from a shared address, with a header, blanks around it or not."""
        tenant = self.writer.tenant()
        header = f"  {tenant.code} " if self.dice.random() < 0.1 else tenant.code
        return self._from(owner_of(tenant), self.shared_ip(tenant.account), x_tenant=header)

    def recording(self) -> Group:
        """An outbound call's recording follows address and header like the call."""
        tenant = self.writer.tenant()
        source: dict[str, Any] = {"source_ip": self.shared_ip(tenant.account), "x_tenant": tenant.code}
        return self._outbound(owner_of(tenant), "call_recording", service="call_recording", **source)

    def international(self) -> Group:
        """Abroad by the numbering plan: +1 876 too, for an account at home in the US."""
        tenant = self.writer.tenant(lambda each: each.dedicated)
        prefix, pattern = self.dice.choice(_INTERNATIONAL[tenant.account])
        fields: dict[str, Any] = {
            "to_number": pattern.format(self.dice.randrange(100, 200)),
            "prefix": prefix,
        }
        source = self.writer.dedicated_ip(tenant)
        return self._outbound(owner_of(tenant), "outbound_international", source_ip=source, **fields)

    def short_duration(self) -> Group:
        """Answered for less than six seconds."""
        tenant = self.writer.tenant(lambda each: each.dedicated)
        talk = self.writer.talk(seconds=Decimal(self.dice.randrange(400, 6000)).scaleb(-3))
        source = self.writer.dedicated_ip(tenant)
        return self._outbound(owner_of(tenant), "outbound_short_duration", talk, source_ip=source)

    def toll_free(self) -> Group:
        """A call to someone's toll-free number."""
        tenant = self.writer.tenant(lambda each: each.dedicated and each.account == RESELLER)
        number = f"+1855555{self.dice.randrange(100, 200):04d}"
        source = self.writer.dedicated_ip(tenant)
        return self._outbound(owner_of(tenant), "outbound_toll_free", source_ip=source, to_number=number)

    def emergency(self) -> Group:
        """A short code, which has no country code, and costs nothing."""
        tenant = self.writer.tenant(lambda each: each.dedicated)
        code = self.dice.choice(_EMERGENCY[tenant.account])
        source = self.writer.dedicated_ip(tenant)
        return self._outbound(owner_of(tenant), "outbound_emergency", source_ip=source, to_number=code)

    def on_net(self) -> Group:
        """One tenant calls another: two records of one call, each for its own tenant."""
        caller = self.writer.tenant(lambda each: each.dedicated and each.account == RESELLER)
        callee = self.writer.tenant(lambda each: each.local and each.account == RESELLER)
        talk, call_id = self.writer.talk(), f"{self.writer.new_id()}@example.com"
        source = {
            "source_ip": self.writer.dedicated_ip(caller),
            "call_id": call_id,
            "to_number": callee.local[0],
        }
        _, out = self.writer.posted(owner_of(caller), _TALKS, talk, direction="outbound", **source)
        _, into = self._to(owner_of(callee), callee.local[0], "inbound_conversational", talk, call_id=call_id)
        return Group(talk.ended_at, [out, *into])

    def last_instant(self) -> Group:
        """Started in the last millisecond of the month in UTC; the switch's own zone says another hour."""
        last = self.carrier.period.ends_at - timedelta(milliseconds=1)
        talk = self.writer.talk(last.astimezone(_NEW_YORK), answered=True)
        tenant = self.carrier.tenant("cedar.example.net")
        return self._outbound(owner_of(tenant), _TALKS, talk, source_ip=self.writer.dedicated_ip(tenant))

    # --- SIP events say what the record does not (A10)

    def invite_first(self) -> Group:
        """A shared address and no header on the record; the INVITE had one."""
        tenant, talk, source, call_id = self._silent_call()
        named = self.writer.sip(invite(call_id, source, talk.started_at, tenant.code))
        return Group(talk.ended_at, [named, self._record(tenant, talk, call_id, source_ip=source)])

    def invite_after(self) -> Group:
        """The same, the record overtakes its INVITE."""
        at, (named, record) = self.invite_first()
        return Group(at, [record, named])

    def invite_as_text(self) -> Group:
        """The INVITE comes as the message's text."""
        tenant, talk, source, call_id = self._silent_call()
        line = "INVITE sip:callee@example.com SIP/2.0"
        named = self.writer.sip(sip_text(call_id, source, talk.started_at, line, tenant.code))
        return Group(talk.ended_at, [named, self._record(tenant, talk, call_id, source_ip=source)])

    def authentication_retry(self) -> Group:
        """Two INVITEs with one Call-ID: the second, with the higher CSeq, has the header."""
        tenant, talk, source, call_id = self._silent_call()
        again_at = talk.started_at + timedelta(milliseconds=80)
        challenged = self.writer.sip(invite(call_id, source, talk.started_at, None))
        named = self.writer.sip(invite(call_id, source, again_at, tenant.code, cseq=2))
        record = self._record(tenant, talk, call_id, source_ip=source)
        return Group(talk.ended_at, [challenged, named, record])

    def source_from_invite(self) -> Group:
        """The record does not even know the source address; its INVITE's packet does."""
        tenant, talk, source, call_id = self._silent_call()
        named = self.writer.sip(invite(call_id, source, talk.started_at, tenant.code))
        return Group(talk.ended_at, [named, self._record(tenant, talk, call_id)])

    def to_default_tenant(self) -> Group:
        """No header anywhere: the shared address has a default tenant."""
        source = SHARED_WITH_DEFAULT.format(self.dice.randrange(130, 250))
        return self._from(Owner(RESELLER, DEFAULT_TENANT), source)

    def without_header(self) -> Group:
        """No header anywhere and no default tenant: the account's unassigned usage."""
        source, talk, call_id = (
            self.shared_ip(RESELLER),
            self.writer.talk(),
            f"{self.writer.new_id()}@example.com",
        )
        if not self.writer.late:
            self.unheard.append((call_id, talk.started_at, source))
        unassigned = Owner(RESELLER, None)
        facts: dict[str, Any] = {"source_ip": source, "call_id": call_id, "reason": "no_tenant_header"}
        return self._outbound(unassigned, _TALKS, talk, **facts)

    def no_source(self) -> Group:
        """Neither the record nor any INVITE names a source: nobody's."""
        return self._outbound(NOBODY, _TALKS, reason="no_source_ip")

    def two_sources(self) -> Group:
        """Two INVITEs from two addresses, and the record names none: nobody's, rather than anybody's."""
        talk, call_id = self.writer.talk(), f"{self.writer.new_id()}@example.com"
        tenants = self.carrier.tenant("foxglove"), self.carrier.tenant("granite.example.com")
        invites = [
            self.writer.sip(
                invite(call_id, SHARED_WITHOUT_DEFAULT[RESELLER].format(last), talk.started_at, tenant.code)
            )
            for last, tenant in zip((31, 32), tenants, strict=True)
        ]
        group = self._outbound(NOBODY, _TALKS, talk, call_id=call_id, reason="ambiguous_context")
        return Group(group.at, [*invites, *group.messages])

    # --- how they are written

    def shared_ip(self, account: str) -> str:
        """A shared address without a default tenant."""
        if account == RESELLER and self.dice.random() < 0.2:
            return SHARED_IPV6.format(self.dice.randrange(1, 60_000))
        return SHARED_WITHOUT_DEFAULT[account].format(self.dice.randrange(20, 60))

    def _silent_call(self) -> tuple[SampleTenant, Talk, str, str]:
        """A call from a shared address, as told by its INVITE only: tenant, times, source and Call-ID."""
        tenant = self.writer.tenant()
        call_id = f"{self.writer.new_id()}@example.com"
        return tenant, self.writer.talk(), self.shared_ip(tenant.account), call_id

    def _record(self, tenant: SampleTenant, talk: Talk, call_id: str, **fields: Any) -> Sent:  # noqa: ANN401
        (record,) = self._outbound(owner_of(tenant), _TALKS, talk, call_id=call_id, **fields).messages
        return record

    def _from(self, owner: Owner, source_ip: str, **fields: Any) -> Group:  # noqa: ANN401 (fields of a record)
        return self._outbound(owner, _TALKS, source_ip=source_ip, **fields)

    def _outbound(self, owner: Owner, usage_class: str, talk: Talk | None = None, **fields: Any) -> Group:  # noqa: ANN401
        pattern = self.dice.choice(_DOMESTIC[owner.account or RESELLER])
        low = 5001 if owner.account == ABROAD else 100
        number = pattern.format(self.dice.randrange(low, low + 90))
        facts = {"direction": "outbound", "to_number": number, **fields}
        at, sent = self.writer.posted(owner, usage_class, talk, **facts)
        return Group(at, [sent])

    def _to(
        self,
        owner: Owner,
        number: str,
        usage_class: str,
        talk: Talk | None = None,
        **fields: Any,  # noqa: ANN401 (same)
    ) -> Group:
        facts = {"direction": "inbound", "to_number": number, **fields}
        at, sent = self.writer.posted(owner, usage_class, talk, **facts)
        return Group(at, [sent])

    def _to_unassigned(self, number: str, talk: Talk) -> Group:
        unassigned = Owner(RESELLER, None)
        return self._to(unassigned, number, "inbound_conversational", talk, reason="number_without_tenant")

    def _service(self, service: str) -> Group:
        tenant = self.writer.tenant(lambda each: each.local)
        talk = Talk(self.writer.moment(), timedelta(0), Decimal(0))
        return self._to(owner_of(tenant), self.dice.choice(tenant.local), service, talk, service=service)


def owner_of(tenant: SampleTenant) -> Owner:
    """A tenant's own usage."""
    return Owner(tenant.account, tenant.code)

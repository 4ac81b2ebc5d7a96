"""How a topic's messages are to be read: which dialect, and what its records do not say themselves.

A dialect is one switch's own format. What one record cannot tell (which switch it was, in which zone its clock ran,
which way the call went) is set per input, checked at start, and never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainValidator, model_validator

from schemas import network
from schemas.decoded import Decoded, OnNet
from schemas.records import Word

Kind = Literal["calls", "sip"]
Decoder = Callable[[bytes | None], Decoded]
Tell = Callable[[Any], str | None]

ZONE_IN_RECORD: Final = "in_record"


def _network(value: str) -> str:
    network.network(value)
    return value


def _zone(value: object) -> str:
    if value == ZONE_IN_RECORD:
        return ZONE_IN_RECORD
    try:
        return ZoneInfo(str(value)).key
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"no such time zone: {value!r} (such as America/New_York, UTC, or in_record where each time has its offset)"
        ) from None


class DirectionPatterns(BaseModel):
    """Inbound and outbound are told by one of the record's own fields.

    `by`: which field; each dialect lists those it knows. The patterns are shell patterns (`from-pstn*`), for `source`
    addresses or networks. A record that fits neither list, or both, is quarantined.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    inbound: tuple[str, ...] = ()
    outbound: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> DirectionPatterns:
        if not (self.inbound or self.outbound):
            raise ValueError("direction needs patterns for inbound, outbound or both")
        if self.by == "source":
            for each in (*self.inbound, *self.outbound):
                network.network(each)
        return self


class Format(BaseModel):
    """A topic's dialect and its settings; a bare name is the dialect without any.

    - `switch`: its name where records do not carry one (identity is switch and id: L1).
    - `zone`: where its zone-less times are local, or `in_record` where every time carries its offset.
    - `direction`: `inbound`, `outbound`, `record` (a field of the record says it), `directory` (which of its numbers
      and addresses are somebody's) or patterns on one of its fields.
    - `on_net`: which way to bill a call between two customers, where `directory` knows both ends: `outbound`, `inbound`, or
      `both`, as two records.
    - `hops`: addresses of the carrier's own switches; a leg that comes from one is billed where it came in.
    - `rows`: Asterisk only (schemas/formats/asterisk_cdr.py).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "canonical"
    switch: Word | None = None
    zone: Annotated[str, PlainValidator(_zone, json_schema_input_type=str)] | None = None
    direction: Literal["inbound", "outbound", "record", "directory"] | DirectionPatterns | None = None
    on_net: OnNet | None = None
    hops: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    rows: Literal["answered", "every"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """One entry of the registry: what can be read, and which settings it needs and takes.

    `tells`: the fields by which direction can be told, each with how it is read from the parsed message; `source`
    (the source address) is known of every dialect of calls that lists it, with None.
    """

    kind: Kind
    name: str
    make: Callable[[Format], Decoder]
    tells: Mapping[str, Tell | None]
    needs: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()

    def refusal(self, settings: Format) -> str | None:
        """Why this dialect cannot be read with these settings; None where it can."""
        given = {name for name in type(settings).model_fields if getattr(settings, name) not in (None, ())}
        missing = sorted(self.needs - given)
        if missing:
            return f"format {self.name} needs {' and '.join(missing)}"
        useless = sorted(given - {"name"} - self.needs - self.takes)
        if useless:
            return f"format {self.name} has no use for {' and '.join(useless)}"
        return self._direction_refusal(settings)

    def _direction_refusal(self, settings: Format) -> str | None:
        direction = settings.direction
        if settings.on_net and direction != "directory":
            return 'on_net is for direction "directory" only'
        by = direction.by if isinstance(direction, DirectionPatterns) else None
        if direction == "record":
            by = "record"
        if by is not None and by not in self.tells:
            known = ", ".join(sorted(self.tells)) or "nothing in the record"
            return f"format {self.name} cannot tell the direction by {by}; it knows: {known}"
        return None

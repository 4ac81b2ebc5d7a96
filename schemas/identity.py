"""What makes two records the same (L1, L2).

Ids are hashes of facts, so doing a thing twice makes one row. Each is 16 bytes, held as uuid. Parts are joined
with a separator that the wire schema refuses inside text, so no two different lists of parts collide.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from uuid import UUID

_SEPARATOR = "\x1f"
_BLANK = blake2b(digest_size=16)


def fact_id(*parts: object) -> UUID:
    """The id of a fact told by its parts, in order; None is told apart from empty text."""
    text = _SEPARATOR.join("\x00" if part is None else str(part) for part in parts)
    return UUID(bytes=blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())


def record_key(switch: str, record_id: str) -> str:
    """The ledger key of a record as 32 hexadecimal digits, which Postgres reads as the same uuid."""
    return record_digest(switch, record_id).hex()


def record_digest(switch: str, record_id: str) -> bytes:
    """The ledger key of a record: a 16-byte hash of its switch and id (L1)."""
    return record_digests([(switch, record_id)])[0]


def record_digests(records: Iterable[tuple[str, str]]) -> list[bytes]:
    """The ledger key of each record, told by its switch and id."""
    return digests([f"{switch}{_SEPARATOR}{record_id}".encode() for switch, record_id in records])


def digests(facts: Iterable[bytes]) -> list[bytes]:
    """A 16-byte hash of each of some facts already written down."""
    hashes = []
    for each in facts:
        hashing = _BLANK.copy()  # a third quicker than to make one anew
        hashing.update(each)
        hashes.append(hashing.digest())
    return hashes

"""What may arrive instead of a message: bytes flipped, cut, repeated, mixed with another's, and JSON in the wrong place."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Final

damaged_length_max: Final = 200_000

_TOKENS: Final = (
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b";", b"<", b">", b"%", b"\x00", b"\xff", b"\r\n", b"\n", b"\r\n "),
    *(b"null", b"true", b"-1", b"0", b"1e400", b"9" * 25, b"\\ud800", b"\\u0000", b";tag=", b'"\\"', b"sip:", b"tel:"),
    *(b"<null>", b"2026-11-01T01:30:00", b"2026-03-08T02:30:00", b"1791633600.5", b"\xe2\x80\xae", b" "),
)  # fmt: skip
_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2**70, 1e308, -0.0, 1791633600, 1791633600.123456, 1791633600123),
    *("", " ", "0", "<null>", "(null)", "null", "NaN", "1e9", "9" * 400, "١٢٣", "%", "%00", "%ZZ", "+", "\x00", "\u202e"),
    *("inbound", "2026-11-01T01:30:00", "2026-03-08T02:30:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
    *("sip:", "tel:", "<sip:a@b", "sip:@", ";;;", "999.1.1.1", "::ffff:192.0.2.1", "fe80::1%eth0", "x" * 5000),
    *([], [1], {}, {"a": []}, [[[[]]]]),
)  # fmt: skip


def damaged(messages: Sequence[bytes], choice: random.Random) -> bytes:
    """One of the messages after one to six kinds of damage."""
    value = choice.choice(messages)
    if choice.random() < 0.4:
        value = _with_another_value(value, choice)
    for _ in range(choice.randint(1, 6)):
        if choice.random() < 0.8:
            value = _bytes_damaged(value, messages, choice)
    return value[:damaged_length_max]


def _with_another_value(value: bytes, choice: random.Random) -> bytes:
    """A JSON object with another value in one to three of its fields, however deep."""
    try:
        document = json.loads(value)
    except ValueError:
        return value
    for _ in range(choice.randint(1, 3)):
        _replace(document, choice)
    return json.dumps(document).encode()


def _replace(where: Any, choice: random.Random) -> None:  # noqa: ANN401 (any JSON)
    while isinstance(where, dict | list) and where:
        name: Any = choice.choice(list(where)) if isinstance(where, dict) else choice.randrange(len(where))
        if isinstance(where[name], dict | list) and where[name] and choice.random() < 0.8:
            where = where[name]
            continue
        where[name] = deepcopy(choice.choice(_VALUES))
        return


def _bytes_damaged(value: bytes, others: Sequence[bytes], choice: random.Random) -> bytes:
    first, last = sorted(choice.choices(range(len(value) + 1), k=2))
    match choice.randrange(6):
        case 0:
            return value[:first] + bytes([choice.randrange(256)]) + value[first + 1 :]
        case 1:
            return value[:first] + value[last:]
        case 2:
            return value[:last]
        case 3:
            return (
                value[:first] + choice.choice(_TOKENS) * choice.choice((1, 1, 1, 2, 50, 2000)) + value[first:]
            )
        case 4:
            return value[:last] + value[first:last] * choice.choice((1, 2, 20)) + value[last:]
        case _:
            other = choice.choice(others)
            return value[:first] + other[choice.randint(0, len(other)) :]

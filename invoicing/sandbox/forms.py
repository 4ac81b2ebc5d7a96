"""Form-encoded parameters with nesting, as Stripe's clients send them: `metadata[line]=1&expand[0]=customer`."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl

from invoicing.sandbox.refusal import invalid

Form = dict[str, "str | Form"]

_PART: Final = re.compile(r"\[([^\[\]]*)\]")


def parse_form(encoded: str) -> Form:
    """Nested parameters of a body or a query; list positions stay as text keys (`{"0": …}`).

    Raises:
        RefusedError: a name is both a value and a group.
    """
    form: Form = {}
    for name, value in parse_qsl(encoded, keep_blank_values=True, strict_parsing=False):
        head = name.split("[", 1)[0]
        _put(form, [head, *_PART.findall(name[len(head) :])], value, name)
    return form


def text(form: Form, name: str) -> str | None:
    """A plain parameter; None where it is absent."""
    value = form.get(name)
    if isinstance(value, dict):
        raise invalid(f"Invalid string: {name}", name)
    return value


def group(form: Form, name: str) -> Form:
    """A nested group of parameters; empty where it is absent."""
    value = form.get(name, {})
    if not isinstance(value, dict):
        if value:
            raise invalid(f"Invalid object: {name}", name)
        return {}
    return value


def texts(form: Form, name: str) -> dict[str, str]:
    """A group whose members are plain: metadata, an address."""
    return {key: value for key, value in group(form, name).items() if isinstance(value, str) and value}


def integer(form: Form, name: str) -> int | None:
    """A whole number; None where it is absent."""
    value = text(form, name)
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        raise invalid(f"Invalid integer: {value}", name, "parameter_invalid_integer") from None


def boolean(form: Form, name: str, absent: bool = False) -> bool:  # noqa: FBT001, FBT002 (a default, said by name)
    """A yes or no."""
    value = text(form, name)
    if value is None:
        return absent
    if value not in {"true", "false"}:
        raise invalid(f"Invalid boolean: {value}", name)
    return value == "true"


def _put(form: Form, path: list[str], value: str, name: str) -> None:
    for part in path[:-1]:
        below = form.setdefault(part, {})
        if not isinstance(below, dict):
            raise invalid(f"Invalid parameter: {name}", name)
        form = below
    last = path[-1] or str(len(form))
    if isinstance(form.get(last), dict):
        raise invalid(f"Invalid parameter: {name}", name)
    form[last] = value

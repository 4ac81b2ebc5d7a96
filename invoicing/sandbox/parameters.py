"""Which parameters Stripe knows, told by the official library's own types."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from types import ModuleType
from typing import Any, Final

import stripe
import stripe.params

from invoicing.sandbox.forms import Form
from invoicing.sandbox.refusal import RefusedError, invalid

API_VERSION: Final = stripe.api_version
_OPTIONS: Final = frozenset(stripe.RequestOptions.__annotations__)
_NAME: Final = re.compile(r"\b[A-Z]\w+Params\w*")
_CHOICE: Final = re.compile(r"Literal\[([^\]]*)\]")
_WHOLE: Final = re.compile(r"\bint\b(?!.*\bstr\b)")


def refuse_unknown(params: str, form: Form) -> None:
    """Refuse parameters, at any depth, that `stripe.params.<params>` does not name.

    Raises:
        RefusedError: 400, `parameter_unknown`, or a value of another type than the parameter has.
    """
    _check(getattr(stripe.params, params), form, "")


def _check(model: type[Any], form: Form, path: str) -> None:
    known = _annotations(model.__module__, model.__name__)
    for name, value in form.items():
        where = f"{path}[{name}]" if path else name
        annotation = known.get(name)
        if annotation is None:
            raise RefusedError(
                400, f"Received unknown parameter: {where}", code="parameter_unknown", param=where
            )
        _check_value(model, annotation, value, where)


def _check_value(model: type[Any], annotation: str, value: str | Form, where: str) -> None:
    nested = _nested(sys.modules[model.__module__], annotation)
    if isinstance(value, str):
        _check_plain(annotation, value, where)
        return
    if "Dict[" in annotation:
        return
    if "List[" in annotation:
        for position, each in value.items():
            if nested is not None and isinstance(each, dict):
                _check(nested, each, f"{where}[{position}]")
        return
    if nested is None:
        raise invalid(f"Invalid string: {where}", where)
    _check(nested, value, where)


def _check_plain(annotation: str, value: str, where: str) -> None:
    choices = {each for part in _CHOICE.findall(annotation) for each in re.findall(r"'([^']*)'", part)}
    if choices - {""} and value not in choices:
        raise invalid(f"Invalid {where}: must be one of {', '.join(sorted(choices))}", where)
    if re.search(r"\bbool\b", annotation) and value not in {"true", "false"}:
        raise invalid(f"Invalid boolean: {value}", where)
    if _WHOLE.search(annotation) and value and not re.fullmatch(r"-?\d+", value):
        raise invalid(f"Invalid integer: {value}", where, "parameter_invalid_integer")


@lru_cache
def _annotations(module: str, name: str) -> dict[str, str]:
    model = getattr(sys.modules[module], name)
    return {
        name: repr(annotation) for name, annotation in model.__annotations__.items() if name not in _OPTIONS
    }


def _nested(module: ModuleType, annotation: str) -> type[Any] | None:
    for name in _NAME.findall(annotation):
        found = getattr(module, name, None)
        if isinstance(found, type):
            return found
    return None

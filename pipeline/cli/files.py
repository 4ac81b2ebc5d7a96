"""A file that a person wrote, as a model: YAML or JSON, read strictly, each fault named with its place."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.cli.output import Refused

_file_bytes_max: Final = 1_000_000
_WHOLE: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_Model = TypeVar("_Model", bound=BaseModel)


def read_file(file: Path, model: type[_Model], what: str, **defaults: Any) -> _Model:  # noqa: ANN401 (any field)
    """A YAML or JSON file as a model; `what` names it to people, `defaults` hold where the file says nothing.

    Raises:
        Refused: it cannot be read, or is none.
    """
    try:
        if file.stat().st_size > _file_bytes_max:
            raise Refused(f"{file} is larger than {_file_bytes_max} bytes")
        read = yaml.load(file.read_text(encoding="utf-8"), _Strict)  # noqa: S506 (a safe loader, made stricter)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{file} cannot be read: {error}") from error
    if not isinstance(read, dict):
        raise Refused(
            f"{file} is no {what}: it must name fields, such as `{next(iter(model.model_fields))}: …`"
        )
    try:
        return model.model_validate(defaults | read)
    except ValidationError as error:
        wrong = "\n".join(f"  {place}: {fault}" for place, fault in _faults(error))
        raise Refused(f"{file} is no {what}:\n{wrong}") from None


def _faults(error: ValidationError) -> list[tuple[str, str]]:
    """Each fault and where it is, but for a list that is too short only because of the faults in it."""
    found = [(".".join(map(str, each["loc"])), each["msg"], each["type"]) for each in error.errors()]
    return [
        (place, message)
        for place, message, kind in found
        if kind != "too_short" or not any(other.startswith(f"{place}.") for other, *_ in found)
    ]


class _Strict(yaml.SafeLoader):
    """Refuses what YAML takes in silence and a bill must not: a field twice, 010 for 8, 1:30 for 90, a text for a day."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        name = str(key.value)
        if name in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the field {name!r} is there twice", key.start_mark
            )
        seen.add(name)
    return loader.construct_mapping(node, deep=True)


def _whole_number(loader: _Strict, node: yaml.ScalarNode) -> int | str:
    """A whole number as people write them; any other notation stays the text that it is."""
    text = _text(loader, node)
    return int(text) if _WHOLE.fullmatch(text) else text


def _text(loader: _Strict, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


_Strict.add_constructor("tag:yaml.org,2002:map", _mapping)
_Strict.add_constructor("tag:yaml.org,2002:int", _whole_number)
_Strict.add_constructor("tag:yaml.org,2002:timestamp", _text)

"""Where a line of an invoice comes from: the lines of the statement that it counts."""

from __future__ import annotations

from typing import Any

from invoicing.lines import InvoiceLine
from schemas.statements import Statement


def sources(line: InvoiceLine, statement: Statement) -> list[dict[str, Any]]:
    """The statement's own lines behind a line of the invoice, as its JSON has them; none for a flat item.

    Included minutes are subtracted from what these come to; nothing else is.
    """
    match line.unit:
        case "item":
            return []
        case "channel":
            return [{"peak_concurrent_channels": statement.peak_concurrent_channels}]
        case "number":
            return _numbers(line, statement)
        case "cost":
            return _usage(line, statement) + (_numbers(line, statement) if not line.late else [])
        case "second" | "event":
            return _usage(line, statement)


def _usage(line: InvoiceLine, statement: Statement) -> list[dict[str, Any]]:
    return [
        each.model_dump(mode="json")
        for each in statement.lines
        if each.usage_period == line.usage_period and _counts(line, each.usage_class)
    ]


def _numbers(line: InvoiceLine, statement: Statement) -> list[dict[str, Any]]:
    return [each.model_dump(mode="json") for each in statement.numbers if _counts(line, each.usage_class)]


def _counts(line: InvoiceLine, usage_class: str) -> bool:
    return usage_class in line.usage_classes or not line.usage_classes

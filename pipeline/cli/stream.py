"""What comes in, and what waits: publish, held."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import orjson
import typer
from confluent_kafka import KafkaException

from pipeline.cli import session
from pipeline.cli.output import AsJson, Refused, print_json, progress, say, show
from pipeline.explain import waits_for
from pipeline.publisher import PublishReport, publish_lines
from rollup import reading_store
from rollup.explain_store import topics_read

_rows_max = 1000


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    app.command()(publish)
    held = typer.Typer(no_args_is_help=True, help="Records that wait for their tenant to be told.")
    held.command("list")(held_list)
    app.add_typer(held, name="held")


def publish(
    topic: Annotated[str, typer.Argument(help="The topic, such as calls.raw.")],
    file: Annotated[str, typer.Argument(help="A file of JSON lines, or - for standard input.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Send JSON lines to an input topic and say how many the broker acknowledged; keys are the call ids."""
    inputs = [each.topic for each in session.settings().inputs]
    if topic not in inputs:
        raise Refused(f"{topic} is no input topic of this installation; there are {', '.join(inputs)}")
    if file == "-":
        report = _publish(topic, sys.stdin.buffer, None)
    elif not Path(file).is_file():
        raise Refused(f"no such file: {file}")
    else:
        with Path(file).open("rb") as lines:
            total = sum(1 for line in lines if line.strip())
            lines.seek(0)
            report = _publish(topic, lines, total)
    if as_json:
        print_json(report)
    else:
        say(f"{report.acknowledged} of {report.sent} records were acknowledged")
    if report.failed:
        raise Refused(
            f"{report.failed} records were not acknowledged: {report.first_error or 'the broker did not answer'}"
        )


def held_list(*, as_json: AsJson = False) -> None:
    """List held records with what they wait for, oldest first, and how far SIP events have been read."""
    with session.transaction("held list") as connection:
        held = reading_store.held(connection, _rows_max)
        read = topics_read(connection, [topic.topic for topic in session.settings().inputs_of("sip")])
    through = [each.read_through_at for each in read]
    sip_read_through_at = None if None in through else min(through, default=None)  # type: ignore[type-var]
    rows = [
        row._asdict()
        | {"waits_for": waits_for(row.reason, row.hold_until), "sip_read_through_at": sip_read_through_at}
        for row in held
    ]
    show(rows, as_json=as_json, title="held records", empty="none")


def _publish(topic: str, lines: BinaryIO, total: int | None) -> PublishReport:
    with progress(f"publishing to {topic}", total) as advance:
        shown = 0

        def told(sent: int, _acknowledged: int) -> None:
            nonlocal shown
            advance(sent - shown)
            shown = sent

        settings = session.settings()
        try:
            return publish_lines(
                settings.kafka_bootstrap_servers,
                topic,
                lines,
                key_of=_call_id,
                progress=told,
                security=settings.kafka_security,
            )
        except KafkaException as error:
            why = error.args[0].str() if error.args else error
            raise Refused(f"record {shown + 1} cannot be sent, those before it were: {why}") from error


def _call_id(line: bytes) -> bytes | None:
    """The call id of a record, so that the records of one call keep their order; None where it cannot be told."""
    try:
        record = orjson.loads(line)
        call_id = record.get("call_id") or record.get("id")
    except (orjson.JSONDecodeError, AttributeError):
        return None
    return call_id.encode() if isinstance(call_id, str) else None

"""Rows that are copied in binary form are read back as what they were."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from schemas import binary, bulk
from schemas.network import address

Row = tuple[str | None, int | None, bool, date, datetime | None, str | None, Decimal]

instants = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
amounts = st.decimals(0, Decimal("999999999999.999999"), places=6)
rows = st.tuples(
    st.none() | texts,
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.dates(date(1970, 1, 1), date(2100, 1, 1)),
    st.none() | instants,
    st.none() | st.ip_addresses().map(lambda each: address(str(each))),
    amounts,
)


def encoded(row: Row) -> bytes:
    words, number, flag, day, instant, host, amount = row
    return b"".join(
        [
            binary.binary_row_start(len(row)),
            binary.binary_text(words),
            binary.binary_bigint(number),
            binary.binary_bool(flag),
            binary.binary_date(day),
            *binary.binary_rows([binary.microseconds_each([instant])]),
            binary.binary_address(host),
            *binary.binary_rows([binary.binary_numerics(np.array([int(amount * 10**6)]))]),
        ]
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_rows=st.lists(rows, min_size=1, max_size=20))
def test_what_is_copied_in_binary_form_is_read_back_the_same(database: Engine, given_rows: list[Row]) -> None:
    with database.begin() as connection:
        connection.execute(
            text(
                "create temporary table copied (place serial, words text, number bigint, flag boolean, day date, "
                "instant timestamptz, host inet, amount numeric(18, 6)) on commit drop"
            )
        )
        columns = ("words", "number", "flag", "day", "instant", "host", "amount")
        bulk.copy_binary(connection, "copied", columns, map(encoded, given_rows))
        read = connection.execute(
            text("select words, number, flag, day, instant, host(host), amount from copied order by place")
        )

        assert [tuple(row) for row in read] == given_rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    given_rows=st.lists(
        st.tuples(st.none() | st.integers(-(2**62), 2**62), st.booleans(), st.none() | instants, amounts),
        min_size=1,
        max_size=20,
    )
)
def test_rows_of_columns_are_read_back_the_same_whichever_fields_are_null(
    database: Engine, given_rows: list[tuple[int | None, bool, datetime | None, Decimal]]
) -> None:
    numbers, flags, times, sums = zip(*given_rows, strict=True)
    fields = binary.binary_rows(
        [
            np.arange(len(given_rows), dtype=np.int32),
            binary.numbers(numbers),
            np.array(flags),
            binary.microseconds_each(times),
            binary.binary_numerics(binary.numbers(int(each * 10**6) for each in sums)),
        ]
    )
    start = binary.binary_row_start(5)
    with database.begin() as connection:
        connection.execute(
            text(
                "create temporary table laid (place integer, number bigint, flag boolean, instant timestamptz, "
                "amount numeric(18, 6)) on commit drop"
            )
        )
        columns = ("place", "number", "flag", "instant", "amount")
        bulk.copy_binary(connection, "laid", columns, [start + each for each in fields])
        read = connection.execute(text("select number, flag, instant, amount from laid order by place"))

        assert [tuple(row) for row in read] == given_rows


@given(st.lists(st.none() | texts | texts.map(lambda each: each.join("x" * 300)), max_size=4))
def test_a_column_of_texts_is_each_of_them_however_long(column: list[str | None]) -> None:
    assert binary.binary_texts(column) == list(map(binary.binary_text, column))


def test_a_refused_copy_is_an_error_of_the_database(database: Engine) -> None:
    with database.begin() as connection, pytest.raises(DBAPIError, match="no_such_table"):
        bulk.copy_binary(connection, "no_such_table", ("words",), [])

"""Rows of metadata as tables of plain columns."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipgs_plugin.search.metadata import base_schema

if TYPE_CHECKING:
    import pyarrow as pa

PLAIN = (str, bool, int, float)


def table_of(rows: Sequence[dict], name: str) -> pa.Table:
    """Convert rows to a table with the columns of every index, and others as the values are.

    Args:
        rows: Values by column.
        name: Name in errors.

    Raises:
        ValueError: A value is not plain, a text is not Unicode, or the values of a column are of several types.
    """
    import pyarrow as pa
    fixed = {field.name: field.type for field in base_schema()}
    columns = {}
    for column in dict.fromkeys([*fixed, *(key for row in rows for key in row)]):
        values = [row.get(column) for row in rows]
        odd = next((value for value in values if value is not None and not isinstance(value, PLAIN)), None)
        if odd is not None or not column.isidentifier():
            raise ValueError(f'{name}: {column!r} is {odd!r:.100}, expected a column of texts, numbers or truth values '
                             'with a name of letters, digits and underscores')
        try:
            columns[column] = pa.array(values, fixed.get(column))
        except UnicodeEncodeError as error:
            raise ValueError(f'{name}: column {column!r} cannot be stored, since a text is not Unicode; rename the '
                             'file or change the text') from error
        except (pa.ArrowException, OverflowError) as error:
            raise ValueError(f'{name}: column {column!r} cannot be stored ({str(error).splitlines()[0]:.200}); give '
                             'values of one type') from error
    return pa.table({column: values for column, values in columns.items() if not pa.types.is_null(values.type)})


def storable(row: dict) -> bool:
    """Return True if texts are Unicode and integers have 64 bits, which types do not tell."""
    return all(value.isascii() or value == value.encode('utf-8', 'replace').decode() if isinstance(value, str) else
               not isinstance(value, int) or -2 ** 63 <= value < 2 ** 63 for value in row.values())


def joined_schema(first: pa.Schema, second: pa.Schema, name: str) -> pa.Schema:
    """Return the columns of both, integers beside fractions as fractions.

    Raises:
        ValueError: A column has text in one and numbers in the other.
    """
    import pyarrow as pa
    try:
        return pa.unify_schemas([first, second], promote_options='permissive')
    except pa.ArrowException:
        column = next(field.name for field in second
                      if field.name in first.names and not _unify(first.field(field.name), field))
        raise ValueError(f'{name}: column {column!r} is {second.field(column).type}, in the index it is '
                         f'{first.field(column).type}; give values of one type') from None


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of several tables whose columns :func:`joined_schema` joins."""
    import pyarrow as pa
    return pa.concat_tables(tables, promote_options='permissive').replace_schema_metadata()


def _unify(first: pa.Field, second: pa.Field) -> bool:
    import pyarrow as pa
    try:
        pa.unify_schemas([pa.schema([first]), pa.schema([second])], promote_options='permissive')
    except pa.ArrowException:
        return False
    return True

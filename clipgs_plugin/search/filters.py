"""Conditions on the metadata of an index, such as ``gaussians>=5000``."""
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

FORM = "COLUMN followed by =, !=, >=, <=, >, < or ~ (contains) and a value, such as 'category=chair'"
_CONDITION = re.compile(r'\s*([^\W\d]\w*)\s*(!=|>=|<=|=|>|<|~)\s*(.*?)\s*', re.DOTALL)
_COMPARISONS = {'=': 'equal', '!=': 'not_equal', '>=': 'greater_equal', '<=': 'less_equal', '>': 'greater',
                '<': 'less'}


@dataclass(frozen=True)
class Filter:
    """A condition on one column.

    Numbers compare as numbers, and texts by their characters; ``~`` holds for a text that contains the value in
    either case. A row without a value meets ``!=`` alone.
    """

    column: str
    relation: str
    value: str

    def __str__(self) -> str:
        return f'{self.column}{self.relation}{self.value}'

    def mask(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the truth of the condition for every value of a column.

        Raises:
            ValueError: The column holds numbers and the value is none, or the relation is not of numbers.
        """
        import pyarrow as pa
        import pyarrow.compute as pc
        if column.type in (pa.float16(), pa.uint64()):  # which Arrow does not compare with every number
            column = column.cast(pa.float64(), safe=False)
        if self.relation == '~':
            if not pa.types.is_string(column.type):
                raise ValueError(f'{self}: {self.column} holds {column.type}, and ~ is of text; use = or > instead')
            found = pc.match_substring(column, self.value, ignore_case=True)
        else:
            found = getattr(pc, _COMPARISONS[self.relation])(column, self._scalar(column.type))
        return pc.fill_null(found, self.relation == '!=')

    def _scalar(self, kind: pa.DataType) -> pa.Scalar:
        """Return the value as one that compares with a column."""
        import pyarrow as pa
        if pa.types.is_string(kind):
            return pa.scalar(self.value)
        if pa.types.is_boolean(kind) and self.value.lower() in ('true', 'false') and self.relation in ('=', '!='):
            return pa.scalar(self.value.lower() == 'true')
        if pa.types.is_integer(kind) and re.fullmatch(r'[-+]?\d{1,18}', self.value):
            return pa.scalar(int(self.value))
        try:
            if pa.types.is_integer(kind) or pa.types.is_floating(kind):
                return pa.scalar(float(self.value))
        except ValueError:
            pass
        raise ValueError(f'{self}: {self.column} holds {kind}, which {self.value[:60]!r} cannot be compared with')


def parse_filter(text: str) -> Filter:
    """Parse a condition.

    Example:
        >>> parse_filter('gaussians>=5000')
        Filter(column='gaussians', relation='>=', value='5000')

    Raises:
        ValueError: It does not have the form of a condition.
    """
    found = _CONDITION.fullmatch(text)
    if not found or text != text.encode('utf-8', 'replace').decode():
        raise ValueError(f'{text[:100]!r} is no condition; expected {FORM}')
    return Filter(*found.groups())


def as_filters(where: str | Filter | Sequence[str | Filter]) -> list[Filter]:
    """Return conditions as filters."""
    conditions = [where] if isinstance(where, (str, Filter)) else where
    return [parse_filter(each) if isinstance(each, str) else each for each in conditions]

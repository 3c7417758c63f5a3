"""Bodies of requests, with their bounds."""
from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_ROWS = 200_000  # of a selection

Row = Annotated[int, Field(ge=0, lt=2 ** 40)]
Rows = Annotated[list[Row], Field(min_length=1, max_length=MAX_ROWS)]


class _Body(BaseModel):
    model_config = ConfigDict(extra='forbid', strict=True)


class Find(_Body):
    """Query and conditions: at most one of text, object and stored query; none lists all objects."""

    text: Annotated[str, Field(max_length=1000)] | None = None
    like: Row | None = None                     # an object of the index
    query: Annotated[str, Field(max_length=40)] | None = None  # of an upload
    where: Annotated[list[Annotated[str, Field(max_length=300)]], Field(max_length=40)] = []
    tag: Annotated[str, Field(max_length=100)] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 500  # of a query


class Details(_Body):
    """Objects whose names and facts are to be shown."""

    rows: Annotated[list[Row], Field(max_length=500)]


class Tagging(_Body):
    """Tag to give to objects, or to take from them."""

    tag: Annotated[str, Field(max_length=200)]
    rows: Rows
    on: bool


class Listing(_Body):
    """Selection to write as a list."""

    rows: Rows
    kind: Literal['txt', 'csv', 'json']


class Copying(_Body):
    """Selection to copy into a folder of this name."""

    rows: Rows
    folder: Annotated[str, Field(max_length=100)]

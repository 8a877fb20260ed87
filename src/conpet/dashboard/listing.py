"""Long lists, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Query

Row = TypeVar("Row")
PAGE = 50
"""Rows on a page."""
PageNumber = Annotated[int, Query(alias="page", ge=1, le=10**9)]
"""The parameter of an address that names the page."""
SearchText = Annotated[str, Query(alias="q", max_length=200)]
"""The parameter of an address with what is searched for."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[Row]):
    """A page of a list.

    Attributes:
        rows: The rows on it.
        number: Its number, from 1.
        pages: Number of pages, 1 or more.
        total: Number of rows in the list.
    """

    rows: Sequence[Row]
    number: int
    pages: int
    total: int


def newest(found: Sequence[Row]) -> tuple[Sequence[Row], Row | None]:
    """Return a page of rows of which one more than fit were asked for, and its last row if there are older ones."""
    rows = found[:PAGE]
    return rows, rows[-1] if len(found) > PAGE else None


def listed(rows: Sequence[Row], number: int, size: int = PAGE) -> Listing[Row]:
    """Return a page of a list; the last one, if it has fewer."""
    pages = max(1, -(-len(rows) // size))
    number = min(number, pages)
    return Listing(rows[(number - 1) * size : number * size], number, pages, len(rows))


def matches(text: str, *values: str | None) -> bool:
    """Return whether each word of a search is in one of the values, whatever its case."""
    found = " ".join(value for value in values if value is not None).casefold()
    return all(word in found for word in text.casefold().split())

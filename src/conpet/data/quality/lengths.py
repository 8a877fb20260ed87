"""Inputs that are cut at `backbone.max_tokens`, and marked spans that are too long or have no tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from conpet.backbone.encode import Encoder
from conpet.data.quality.finding import Finding
from conpet.data.quality.rows import Row, TaskRows
from conpet.data.truncation import Need
from conpet.errors import plural

_CHUNK = 4096


def needs_of(task: TaskRows, encoder: Encoder) -> Iterator[tuple[Row, Need]]:
    """Yield each row of a task with the tokens it needs; rows must have passed the checks of the readers."""
    rows = iter(task.rows)
    while chunk := list(islice(rows, _CHUNK)):
        yield from zip(chunk, encoder.needs([row.example for row in chunk], task.template), strict=True)


def find_lengths(needs: Mapping[Row, Need], max_tokens: int) -> Iterator[Finding]:
    """Yield a finding for each row that cannot be encoded, and for each that is cut at `max_tokens`."""
    for row, need in needs.items():
        if reason := need.problem(max_tokens):
            yield Finding("unencodable", reason, row, leaves_out=True)
        elif need.tokens > max_tokens:
            surplus = plural(need.tokens - max_tokens, "token")
            yield Finding("cut", f"{surplus} of {need.tokens:,} will be cut off at max_tokens={max_tokens}", row)


def cut_summary(needs: Iterable[Need], max_tokens: int, longest: int | None) -> str | None:
    """Return how many inputs are cut, by how much, and what setting would keep them whole; None if none is cut.

    Args:
        needs: The tokens of each input.
        max_tokens: Longest input, in tokens.
        longest: Longest input that the backbone can read, or None if it has no limit.
    """
    tokens = [need.tokens for need in needs if need.problem(max_tokens) is None]
    surplus = sorted(count - max_tokens for count in tokens if count > max_tokens)
    if not surplus:
        return None
    most = max_tokens + surplus[-1]
    advice = f"backbone.max_tokens={most} would keep all of them whole"
    if longest is not None and most > longest:
        fitting = sum(max_tokens + count <= longest for count in surplus)
        advice = f"the backbone reads at most {longest} tokens, which would keep {fitting:,} of them whole"
    return (
        f"{len(surplus):,} of {plural(len(tokens), 'input')} will be cut at {max_tokens} tokens, half of them by "
        f"{plural(surplus[(len(surplus) - 1) // 2], 'token')} or more and the longest by {surplus[-1]:,}; {advice}"
    )

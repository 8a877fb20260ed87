"""Inputs that are nearly equal: MinHash LSH over character n-grams, verified by their exact Jaccard similarity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conpet.data.quality.finding import Finding
from conpet.data.quality.rows import TEST, TRAIN, Data, Row, input_identity, plain

NEAR = 0.8
"""Least Jaccard similarity of two inputs that are nearly equal."""
SHINGLE = 4
"""Characters of a shingle."""
_PERMUTATIONS = 64
_BANDS, _BAND_ROWS = 16, 4
"""A pair with similarity s becomes a candidate with probability 1 - (1 - s^4)^16: 99.98% at 0.8, 64% at 0.5."""
_MOST_CANDIDATES = 64
"""Candidates of a row that are verified: those whose signatures agree most."""
_MULTIPLIER = np.uint32(0x01000193)
_Shingles = NDArray[np.uint32]


def find_near_copies(data: Data) -> Iterator[Finding]:
    """Yield a finding for each row that is nearly equal to another one; equal inputs are left to `find_copies`.

    Inputs with marked spans are compared only if the words of their spans are equal, because one sentence is often
    used with several spans.
    """
    rows = [*data.stored, *data.rows]
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[_key(row)].append(row)
    keys = list(groups)
    chosen: dict[Row, tuple[Row, float]] = {}
    for key in keys:
        _pair_up(groups[key], _representatives(groups[key]), 1.0, chosen)
    for key, other, similarity in _similar(keys):
        _pair_up(groups[key], _representatives(groups[other]), similarity, chosen)
        _pair_up(groups[other], _representatives(groups[key]), similarity, chosen)
    order = {row: number for number, row in enumerate(rows)}
    for row in data.rows:
        if row in chosen and (found := _finding(row, *chosen[row], order)):
            yield found


def _key(row: Row) -> str:
    """Return what is compared: the plain text, with the words of the spans in front."""
    spans = [span for span in (row.example.head, row.example.tail, row.example.mention) if span is not None]
    marked = "\t".join(plain(" ".join(row.example.tokens[span.start : span.end])) for span in spans)
    return f"{row.example.kind}\t{marked}\n{plain(row.example.content)}"


def _representatives(rows: list[Row]) -> list[Row]:
    """Return the first row, and the first held-out row, of rows with the same key."""
    return rows[:1] + [row for row in rows[1:] if row.subset != TRAIN][:1]


def _pair_up(
    rows: Iterable[Row], others: Sequence[Row], similarity: float, chosen: dict[Row, tuple[Row, float]]
) -> None:
    """Note for each row its best counterpart: a held-out one for a training row, else the most similar."""
    for row in rows:
        for other in others:
            if other is row or input_identity(row.example) == input_identity(other.example):
                continue
            if row not in chosen or _rank(row, other, similarity) > _rank(row, *chosen[row]):
                chosen[row] = (other, similarity)


def _rank(row: Row, other: Row, similarity: float) -> tuple[bool, float]:
    return row.subset == TRAIN and other.subset != TRAIN, similarity


def _finding(row: Row, other: Row, similarity: float, order: Mapping[Row, int]) -> Finding | None:
    how = (
        f"{similarity:.0%} of the character sequences are the same"
        if similarity < 1
        else ("the same apart from case, punctuation and blanks")
    )
    if row.subset == TRAIN and other.subset != TRAIN:
        message = f"is nearly equal to {_subset(other)} ({other.place_from(row)}): {how}"
        return Finding("near-leak", message, row, other=other, leaves_out=True)
    if order[other] > order[row] or row.subset != other.subset:
        return None  # reported at the other row
    if (row.task, row.label) != (other.task, other.label):
        message = f"label {row.label!r}, but {other.place_from(row)} is nearly equal and has {other.label!r}: {how}"
        return Finding("near-contradiction", message, row, other=other)
    return Finding("near-duplicate", f"is nearly equal to {other.place_from(row)}: {how}", row, other=other)


def _subset(row: Row) -> str:
    return f"a {'test' if row.subset == TEST else row.subset} example"


def _similar(keys: Sequence[str]) -> Iterator[tuple[str, str, float]]:
    """Yield pairs of keys with their similarity, if it is `NEAR` or more; each pair once."""
    from datasketch import LeanMinHash, MinHash, MinHashLSH

    shingles, starts = _shingled(keys)
    if not len(keys):
        return
    signatures = _signatures(shingles, starts, MinHash(_PERMUTATIONS).permutations)
    index = MinHashLSH(num_perm=_PERMUTATIONS, params=(_BANDS, _BAND_ROWS))
    sets: dict[int, set[int]] = {}

    def shingles_of(at: int) -> set[int]:
        if at not in sets:
            sets[at] = set(shingles[starts[at] : starts[at + 1]].tolist())
        return sets[at]

    for at, key in enumerate(keys):
        sketch = LeanMinHash(seed=1, hashvalues=signatures[at], scheme="affine32")
        candidates = np.array([other for other in index.query(sketch) if _marks(keys[other]) == _marks(key)], dtype=int)
        index.insert(at, sketch, check_duplication=False)
        if len(candidates) > _MOST_CANDIDATES:
            agreement = (signatures[candidates] == signatures[at]).sum(axis=1)
            candidates = candidates[np.argsort(-agreement, kind="stable")[:_MOST_CANDIDATES]]
        own = shingles_of(at) if len(candidates) else set()
        for other in candidates.tolist():
            theirs = shingles_of(other)
            shared = len(own & theirs)
            similarity = shared / (len(own) + len(theirs) - shared)
            if similarity >= NEAR:
                yield key, keys[other], similarity


def _marks(key: str) -> str:
    return key.partition("\n")[0]


def _shingled(keys: Sequence[str]) -> tuple[_Shingles, NDArray[np.int64]]:
    """Return the hashes of the shingles of all keys, concatenated, and where those of each key start.

    Texts are padded with blanks, so that a short one has shingles too.
    """
    padding = " " * (SHINGLE - 1)
    texts = [f"{padding}{key.partition(chr(10))[2]}{padding}" for key in keys]
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    ends = np.cumsum(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)])
    hashes = np.zeros(max(0, len(codes) - SHINGLE + 1), dtype=np.uint32)
    for offset in range(SHINGLE):
        hashes = hashes * _MULTIPLIER ^ codes[offset : offset + len(hashes)]
    whole = np.ones(len(hashes), dtype=bool)
    for offset in range(1, SHINGLE):  # not across the end of a text
        crossing = ends[:-1] - offset
        whole[crossing] = False
    return _mixed(hashes[whole]), starts


def _mixed(hashes: _Shingles) -> _Shingles:
    """Spread hashes over all 32 bits (the finaliser of MurmurHash3)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        hashes = (hashes ^ (hashes >> np.uint32(shift))) * np.uint32(factor)
    return hashes ^ (hashes >> np.uint32(16))


def _signatures(shingles: _Shingles, starts: NDArray[np.int64], permutations: Any) -> NDArray[np.uint32]:
    """Return the MinHash signature of each key `[n, permutations]`, as datasketch computes them, for all at once."""
    factors, offsets = permutations
    signatures = np.empty((len(starts) - 1, len(factors)), dtype=np.uint32)
    for number, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
        signatures[:, number] = np.minimum.reduceat(shingles * factor + offset, starts[:-1])
    return signatures

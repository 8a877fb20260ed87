"""Cutting to length: never through what is kept, never beyond the limit, around the spans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conpet.data import PieceRole, TokenPiece, fit
from conpet.errors import DataError

KEPT = (PieceRole.KEEP, PieceRole.SLOT)
A, B, C, D, E = ([base + at for at in range(4)] for base in (10, 20, 30, 40, 50))
SENTENCE = [
    TokenPiece(A, PieceRole.CUT_START),
    TokenPiece(B, PieceRole.KEEP),
    TokenPiece(C, PieceRole.CUT_MIDDLE),
    TokenPiece(D, PieceRole.KEEP),
    TokenPiece(E, PieceRole.CUT_END),
]


def test_text_is_cut_at_its_end_and_the_cue_stays() -> None:
    assert fit([TokenPiece([1, 2, 3, 4], PieceRole.CUT_END), TokenPiece([8, 9], PieceRole.KEEP)], 4) == (
        [1, 2, 8, 9],
        3,
        {},
    )


def test_the_outside_goes_before_the_middle() -> None:
    assert fit(SENTENCE, 99).ids == [*A, *B, *C, *D, *E]
    assert fit(SENTENCE, 16).ids == [12, 13, *B, *C, *D, 50, 51]
    assert fit(SENTENCE, 12).ids == [*B, *C, *D]
    assert fit(SENTENCE, 10).ids == [*B, 30, 33, *D]
    assert fit(SENTENCE, 8).ids == [*B, *D]


def test_the_longer_side_is_cut_first() -> None:
    pieces = [
        TokenPiece([1], PieceRole.CUT_START),
        TokenPiece([7], PieceRole.KEEP),
        TokenPiece(E, PieceRole.CUT_END),
    ]
    assert fit(pieces, 4).ids == [1, 7, 50, 51]


def test_the_slot_is_found_after_cutting() -> None:
    pieces = [
        TokenPiece([101], PieceRole.KEEP),
        *SENTENCE,
        TokenPiece([103], PieceRole.SLOT),
        TokenPiece([102], PieceRole.KEEP),
    ]
    ids, slot, _ = fit(pieces, 13)
    assert ids[slot] == 103
    assert ids[-1] == 102
    assert len(ids) == 13


def test_marked_spans_are_found_after_cutting() -> None:
    pieces = [*SENTENCE[:1], TokenPiece(B, PieceRole.KEEP, ("head",)), SENTENCE[2], TokenPiece(D, PieceRole.KEEP)]
    assert fit(pieces, 99).spans == {"head": (4, 8)}
    ids, _, spans = fit(pieces, 9)
    assert ids[slice(*spans["head"])] == B
    assert fit([TokenPiece(B, PieceRole.KEEP, ("head", "tail"))], 9).spans == {"head": (0, 4), "tail": (0, 4)}


def test_what_cannot_be_cut_must_fit() -> None:
    with pytest.raises(DataError, match="need 8 tokens, more than the limit of 7"):
        fit(SENTENCE, 7)
    with pytest.raises(DataError, match="no tokens"):
        fit([TokenPiece([], PieceRole.CUT_END)], 7)


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from([role for role in PieceRole if role is not PieceRole.SLOT]))
    ),
    st.integers(0, 60),
    st.booleans(),
)
def test_kept_pieces_survive_whole_and_the_limit_holds(
    shapes: list[tuple[int, PieceRole]], limit: int, masked: bool
) -> None:
    ids = iter(range(10_000))
    pieces = [TokenPiece([next(ids) for _ in range(length)], role) for length, role in shapes]
    if masked:
        pieces.append(TokenPiece([next(ids)], PieceRole.SLOT))
    kept = [token for piece in pieces if piece.role in KEPT for token in piece.ids]
    everything = [token for piece in pieces for token in piece.ids]
    if len(kept) > limit or not everything or limit == 0:
        with pytest.raises(DataError):
            fit(pieces, limit)
        return
    out, slot, _ = fit(pieces, limit)
    assert len(out) == min(limit, len(everything))
    assert out == sorted(out)
    assert set(kept) <= set(out)
    assert slot == len(out) - 1
    outer = {t for piece in pieces if piece.role in (PieceRole.CUT_START, PieceRole.CUT_END) for t in piece.ids}
    middle = {t for piece in pieces if piece.role is PieceRole.CUT_MIDDLE for t in piece.ids}
    assert middle <= set(out) or not outer & set(out)

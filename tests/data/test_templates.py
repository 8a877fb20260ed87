"""Templates: what the backbone reads, where the slot is, what a wrong template is told."""

import pytest

from conpet.data import Example, Kind, PieceRole, Rendered, Span, Style, Task, default_template, render
from conpet.errors import ConfigError, DataError

TEXT = Example.of_text("how do I pay?", "pay")
RELATION = Example.of_relation(
    ["Ada", "Lovelace", "was", "born", "in", "London", "."], head=Span(0, 2), tail=Span(5, 6)
)
TYPING = Example.of_mention(["We", "met", "in", "Paris", "today"], Span(3, 4))


def joined(rendered: Rendered) -> str:
    return "".join("[MASK]" if piece.role is PieceRole.SLOT else piece.text for piece in rendered)


@pytest.mark.parametrize(
    ("example", "style", "expected"),
    [
        (TEXT, Style.CAUSAL, "how do I pay?\nIntent:"),
        (TEXT, Style.MASKED, "how do I pay?"),
        (
            RELATION,
            Style.CAUSAL,
            "@ Ada Lovelace @ was born in # London # . In this sentence, the relation of London to Ada Lovelace is",
        ),
        (
            RELATION,
            Style.MASKED,
            "@ Ada Lovelace @ was born in # London # . In this sentence, London is the[MASK] of Ada Lovelace.",
        ),
        (TYPING, Style.CAUSAL, "We met in * Paris * today In this sentence, Paris is a"),
        (TYPING, Style.MASKED, "We met in * Paris * today In this sentence, Paris is a[MASK]."),
    ],
)
def test_the_default_templates_read_as_described(example: Example, style: Style, expected: str) -> None:
    assert joined(render(example, None, style)) == expected


def test_pieces_carry_their_roles_and_lead_with_their_space() -> None:
    example = Example.of_relation(["a", "b", "H", "c", "d", "T", "e", "f"], head=Span(2, 3), tail=Span(5, 6))
    assert [tuple(piece) for piece in render(example, "{sentence} Is:", Style.CAUSAL)] == [
        ("a b", PieceRole.CUT_START, ()),
        (" @", PieceRole.KEEP, ()),
        (" H", PieceRole.KEEP, ("head",)),
        (" @", PieceRole.KEEP, ()),
        (" c d", PieceRole.CUT_MIDDLE, ()),
        (" #", PieceRole.KEEP, ()),
        (" T", PieceRole.KEEP, ("tail",)),
        (" #", PieceRole.KEEP, ()),
        (" e f", PieceRole.CUT_END, ()),
        (" Is:", PieceRole.KEEP, ()),
    ]


def test_neighbouring_kept_text_is_one_piece_but_for_the_span_that_is_marked() -> None:
    example = Example.of_mention(["Paris"], Span(0, 1))
    assert [tuple(piece) for piece in render(example, None, Style.CAUSAL)] == [
        ("*", PieceRole.KEEP, ()),
        (" Paris", PieceRole.KEEP, ("mention",)),
        (" * In this sentence, Paris is a", PieceRole.KEEP, ()),
    ]


def test_nested_and_overlapping_spans_are_never_torn() -> None:
    nested = Example.of_relation(["a", "b", "c", "d"], head=Span(1, 3), tail=Span(1, 2))
    assert joined(render(nested, "{sentence}", Style.CAUSAL)) == "a @ # b # c @ d"
    assert [piece.role for piece in render(nested, "{sentence}", Style.CAUSAL)].count(PieceRole.KEEP) == 1
    crossing = Example.of_relation(["a", "b", "c", "d"], head=Span(0, 2), tail=Span(1, 3))
    assert [tuple(piece) for piece in render(crossing, "{sentence}", Style.CAUSAL)] == [
        ("@ a # b @ c #", PieceRole.KEEP, ("head", "tail")),
        (" d", PieceRole.CUT_END, ()),
    ]


def test_one_user_template_serves_both_styles() -> None:
    template = "Request: {text} It is about {slot}."
    assert joined(render(TEXT, template, Style.MASKED)) == "Request: how do I pay? It is about[MASK]."
    assert joined(render(TEXT, template, Style.CAUSAL)) == "Request: how do I pay? It is about"


def test_japanese_and_literal_braces() -> None:
    example = Example.of_text("カードを失くしました")
    assert joined(render(example, "{{{text}}}\n意図:", Style.CAUSAL)) == "{カードを失くしました}\n意図:"


@pytest.mark.parametrize(
    ("template", "kind", "style", "says"),
    [
        ("{txt} Intent:", Kind.TEXT, Style.CAUSAL, "unknown field in a text template; available: {text}, {slot}"),
        ("{head} of", Kind.TYPING, Style.CAUSAL, "available: {sentence}, {mention}, {slot}"),
        ("{text!r}", Kind.TEXT, Style.CAUSAL, "unknown field"),
        ("Intent:", Kind.TEXT, Style.CAUSAL, "needs {text} exactly once"),
        ("{tail} of {head}", Kind.RELATION, Style.CAUSAL, "needs {sentence} exactly once"),
        ("{text} {slot} {slot}", Kind.TEXT, Style.MASKED, "more than once"),
        ("{text", Kind.TEXT, Style.CAUSAL, "brace"),
        ("{slot} says {text}", Kind.TEXT, Style.CAUSAL, "{slot} must be at the end"),
        (default_template(Kind.RELATION, Style.MASKED), Kind.RELATION, Style.CAUSAL, "{slot} must be at the end"),
    ],
)
def test_a_wrong_template_is_told_why(template: str, kind: Kind, style: Style, says: str) -> None:
    example = {Kind.TEXT: TEXT, Kind.RELATION: RELATION, Kind.TYPING: TYPING}[kind]
    with pytest.raises(ConfigError) as caught:
        render(example, template, style)
    assert says in str(caught.value)
    assert repr(template) in str(caught.value)


def test_a_task_with_a_wrong_template_cannot_be_built() -> None:
    with pytest.raises(DataError, match="unknown field"):
        Task("t", (Example.of_text("a", "x"), Example.of_text("b", "y")), template="{txt}")


def test_a_rendering_has_no_slot_where_the_template_names_none() -> None:
    for style in Style:
        assert all(piece.role is not PieceRole.SLOT for piece in render(TEXT, "{text} Intent:", style))

"""Marked spans: found among the tokens, and what they do in frozen features and in what heads read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from conpet.backbone.backbone import Backbone
from conpet.backbone.encode import Encoder
from conpet.backbone.pooling import Pooling, span_between
from conpet.backbone.sample_texts import SAMPLE_TEXTS
from conpet.data import Example, Span, Style
from tests.helpers.backbones import byte_tokenizer, mask_tokenizer, tiny_backbone

LONG = ["so", "it", "goes", *["on"] * 30, "Ada", "Byron", *["and"] * 40, "Rome", *["too"] * 30]
RELATION = Example.of_relation(LONG, head=Span(33, 35), tail=Span(75, 76))
MENTION = Example.of_mention(LONG, Span(75, 76))
TEXT = Example.of_text("no span is marked here")


@pytest.mark.parametrize(("style", "limit"), [(Style.CAUSAL, 200), (Style.CAUSAL, 1000), (Style.MASKED, 64)])
def test_spans_are_where_their_words_are_also_in_what_was_cut(style: Style, limit: int) -> None:
    tokenizer = byte_tokenizer() if style is Style.CAUSAL else mask_tokenizer()
    encoder = Encoder(tokenizer, style)
    for example, words in ((RELATION, ["adabyron", "rome"]), (MENTION, ["rome"]), (TEXT, [])):
        found = encoder.encode([example], None, limit)[0]
        spelt = [tokenizer.decode(found.ids[start:end]) for start, end in found.spans]
        assert [one.replace(" ", "").replace("##", "").lower() for one in spelt] == words


def test_head_comes_before_tail_wherever_they_stand() -> None:
    encoder = Encoder(byte_tokenizer(), Style.CAUSAL)
    turned = Example.of_relation(["Rome", "saw", "Ada"], head=Span(2, 3), tail=Span(0, 1))
    head, tail = encoder.encode([turned], None, 200)[0].spans
    assert head > tail


def states_by_layer(backbone: Backbone, example: Example) -> list[Tensor]:
    """Return the hidden states `[T, d]` behind each layer, from 1, as the plain model gives them."""
    (encoded,) = backbone.encode([example])
    with torch.no_grad():
        out = backbone.cut.model(input_ids=torch.tensor([encoded.ids]), output_hidden_states=True)
    return [layer[0] for layer in out.hidden_states[1:]]


def scaled(value: Tensor, sample: list[Tensor]) -> Tensor:
    """Standardise a block by a sample, then scale it to the norm of a standard normal vector."""
    stacked = torch.stack(sample)
    standardised = (value - stacked.mean(0)) / stacked.std(0)
    return standardised / standardised.norm() * len(value) ** 0.5


def test_frozen_features_of_a_relation_are_head_tail_and_between_and_of_a_mention_its_span_and_the_sentence() -> None:
    backbone = tiny_backbone(frozen_layers=3, feature_layers=(1, 2, 3, 3))
    texts = [states_by_layer(backbone, Example.of_text(text)) for text in SAMPLE_TEXTS]
    means = [[layers[depth][1:].mean(0) for layers in texts] for depth in range(3)]
    tokens = [[token for layers in texts for token in layers[depth]] for depth in range(2)]
    found = backbone.states([RELATION, MENTION, TEXT], None).features
    relation, mention, text = (states_by_layer(backbone, example) for example in (RELATION, MENTION, TEXT))
    (head, tail), (entity,) = (backbone.encode([example])[0].spans for example in (RELATION, MENTION))
    between = slice(min(head[1], tail[1]), max(head[0], tail[0]))
    expected = [
        [
            scaled(relation[1][slice(*head)].mean(0), tokens[1]),
            scaled(relation[1][slice(*tail)].mean(0), tokens[1]),
            scaled(relation[0][between].mean(0), means[0]),
            scaled(relation[2][between].mean(0), means[2]),
        ],
        [
            scaled(mention[0][slice(*entity)].mean(0), tokens[0]),
            scaled(mention[1][slice(*entity)].mean(0), tokens[1]),
            *(scaled(mention[depth][1:].mean(0), means[depth]) for depth in (2, 2)),
        ],
        [scaled(text[depth][1:].mean(0), means[depth]) for depth in (0, 1, 2, 2)],
    ]
    for row, blocks in zip(found, expected, strict=True):
        torch.testing.assert_close(row, torch.cat(blocks), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("head", "tail"), [(Span(0, 3), Span(2, 4)), (Span(1, 2), Span(2, 3))])
def test_spans_with_nothing_between_them_leave_that_block_empty(head: Span, tail: Span) -> None:
    spans = torch.tensor([[[head.start, head.end], [tail.start, tail.end]]])
    assert not span_between(spans).any()
    assert not span_between(torch.tensor([[[1, 2], [0, 0]]])).any()


def test_of_two_relations_between_the_same_words_the_direction_shows() -> None:
    """Only head and tail are exchanged: a linear classifier of the features must be able to tell."""
    backbone = tiny_backbone()
    words = [f"w{index}" for index in range(12)]
    forwards = [Example.of_relation(words, Span(at, at + 1), Span(at + 3, at + 4)) for at in range(8)]
    backwards = [Example.of_relation(words, Span(at + 3, at + 4), Span(at, at + 1)) for at in range(8)]
    features = backbone.states([*forwards, *backwards]).features
    apart = features[:8] - features[8:]
    # One direction in feature space separates all pairs.
    assert (apart @ apart.mean(0) > 0).all()


def test_with_fewer_than_four_feature_layers_spans_take_no_part() -> None:
    backbone = tiny_backbone(frozen_layers=3, feature_layers=(1, 2, 3))
    other = Example.of_relation(LONG, head=Span(0, 1), tail=Span(75, 76))
    assert backbone.states([RELATION, other]).features.shape == (2, backbone.feature_size)


def test_the_same_words_with_other_spans_are_other_states() -> None:
    backbone = tiny_backbone()
    swapped = Example.of_relation(LONG, head=Span(75, 76), tail=Span(33, 35))
    one, two = backbone.states([RELATION, swapped]).features
    assert not torch.allclose(one, two)


def test_heads_read_head_tail_and_between_or_slot_mention_and_mean_or_slot_and_mean() -> None:
    backbone = tiny_backbone(frozen_layers=2, pooling=Pooling.MARKED)
    examples = [RELATION, MENTION, TEXT]
    states = backbone.states(examples)
    batch = states.collate(range(3), pad=1, device=backbone.device)
    hidden = torch.randn(*batch.ids.shape, backbone.hidden_size, generator=torch.Generator().manual_seed(0))
    found = Pooling.MARKED(hidden, batch)
    encoded = states.encoded
    (head, tail), (entity,) = encoded[0].spans, encoded[1].spans
    length = len(encoded[2].ids)
    expected = [
        torch.cat(
            [hidden[0][slice(*head)].mean(0), hidden[0][slice(*tail)].mean(0), hidden[0][head[1] : tail[0]].mean(0)]
        ),
        torch.cat(
            [
                hidden[1][encoded[1].slot],
                hidden[1][slice(*entity)].mean(0),
                hidden[1][1 : len(encoded[1].ids)].mean(0),
            ]
        ),
        torch.cat([hidden[2][encoded[2].slot], hidden[2][1:length].mean(0), torch.zeros(hidden.shape[2])]),
    ]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[2][: 2 * hidden.shape[2]], Pooling.SLOT_MEAN(hidden, batch)[2])

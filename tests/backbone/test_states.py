"""Prefix states: batches, and what the cache may and may not give back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conpet.backbone.backbone import Backbone
from conpet.backbone.cache import StateCache
from conpet.backbone.states import Batching, Encoded, Shape, States, pad_ids
from conpet.cost import metered
from conpet.data import Example
from conpet.errors import ConfigError
from tests.helpers.backbones import EXAMPLES, tiny_backbone, tiny_loaded, tiny_model

N = len(EXAMPLES)


@pytest.fixture
def cache(tmp_path: Path) -> StateCache:
    return StateCache(tmp_path / "states.sqlite", limit_bytes=8 << 20)


def assert_same(first: States, second: States, tolerance: float = 0.0) -> None:
    assert first.encoded == second.encoded
    torch.testing.assert_close(first.features, second.features, rtol=0, atol=tolerance)
    assert (first.hidden is None) == (second.hidden is None)
    for one, other in zip(first.hidden or (), second.hidden or (), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


# Batches


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 120), st.integers(0, 60))
def test_batches_hold_every_example_once_and_keep_to_their_bounds(lengths: list[int], tokens: int, fixed: int) -> None:
    batching = Batching(tokens, fixed)
    batches = list(batching.batches(lengths))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    shapes = [batching.shape([lengths[index] for index in batch]) for batch in batches]
    for batch, shape in zip(batches, shapes, strict=True):
        assert len(batch) == 1 or shape.rows * shape.tokens <= tokens
        assert len(batch) <= shape.rows < max(2, 2 * len(batch))
        assert max(lengths[index] for index in batch) <= shape.tokens
    cost = sum(shape.rows * shape.tokens + fixed for shape in shapes)
    assert cost <= sum(batching.shape([length]).tokens + fixed for length in lengths)  # not more than one by one
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(flat)  # like lengths stand together, so little is padded


def test_shapes_of_batches_are_few_and_no_longer_than_the_model_reads() -> None:
    batching = Batching(2048, 64, longest=100)
    shapes = [batching.shape([length] * count) for length in range(1, 101) for count in range(1, 2049 // length)]
    assert len({shape.tokens for shape in shapes}) == 23
    assert {shape.rows for shape in shapes} == {1 << bit for bit in range(12)}
    assert max(shape.tokens for shape in shapes) == 100


def test_ids_are_padded_on_the_right() -> None:
    ids, mask = pad_ids([Encoded((7, 8, 9), 2), Encoded((5,), 0)], pad=4)
    assert ids.tolist() == [[7, 8, 9], [5, 4, 4]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    ids, mask = pad_ids([Encoded((7, 8, 9), 2), Encoded((5,), 0)], pad=4, shape=Shape(3, 4))
    assert ids.tolist() == [[7, 8, 9, 4], [5, 4, 4, 4], [4, 4, 4, 4]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]]


def test_a_batch_holds_the_chosen_examples_in_order() -> None:
    states = tiny_backbone(frozen_layers=2).states(EXAMPLES)
    assert states.hidden is not None
    batch = states.collate([1, 2], pad=1, device=torch.device("cpu"))
    assert batch.hidden is not None
    assert batch.slots.tolist() == [states.encoded[1].slot, states.encoded[2].slot]
    assert torch.equal(batch.hidden[0], states.hidden[1])
    short = len(states.encoded[2].ids)
    assert torch.equal(batch.hidden[1, :short], states.hidden[2])
    assert not batch.hidden[1, short:].any()
    assert_same(States.concatenated([states.select([0, 1]), states.select([2, 3, 4])]), states)


def test_how_examples_are_batched_does_not_matter() -> None:
    for architecture in ("llama", "bert"):
        backbone = tiny_backbone(architecture, frozen_layers=3)
        together = backbone.states(EXAMPLES)
        alone = States.concatenated([backbone.states([example]) for example in EXAMPLES])
        assert_same(together, alone, 1e-5)
        assert_same(backbone.states(EXAMPLES[::-1]), together.select(range(N - 1, -1, -1)), 1e-5)


# The cache


def test_what_the_cache_gives_is_what_was_computed(cache: StateCache) -> None:
    first, again = (tiny_backbone(frozen_layers=2, cache=cache) for _ in range(2))
    with metered() as at_first:
        computed = first.states(EXAMPLES)
    with metered() as afterwards:
        assert_same(again.states(EXAMPLES), computed)
    assert (at_first.cache_hits, at_first.cache_lookups) == (0, N)
    assert (afterwards.cache_hits, afterwards.cache_lookups) == (N, N)
    assert_same(tiny_backbone(frozen_layers=2).states(EXAMPLES), computed)
    tokens = sum(len(one.ids) for one in computed.encoded)
    assert (at_first.tokens, at_first.cached_tokens) == (tokens / 2, 0)
    assert (afterwards.tokens, afterwards.cached_tokens) == (0, tokens / 2)


def test_a_cache_that_knows_some_examples_gives_those(cache: StateCache) -> None:
    backbone = tiny_backbone(frozen_layers=2, cache=cache)
    backbone.states(EXAMPLES[:2])
    with metered() as costs:
        found = backbone.states(EXAMPLES)
    assert (costs.cache_hits, cache.entries) == (2, N)
    assert_same(found, tiny_backbone(frozen_layers=2).states(EXAMPLES), 1e-5)


def test_keep_false_leaves_the_cache_alone(cache: StateCache) -> None:
    backbone = tiny_backbone(frozen_layers=2, cache=cache)
    backbone.states(EXAMPLES, keep=False)
    assert cache.entries == 0
    backbone.states(EXAMPLES[:1])
    with metered() as costs:
        backbone.states(EXAMPLES, keep=False)
    assert (costs.cache_lookups, costs.cache_hits, cache.entries) == (0, 0, 1)


def test_equal_inputs_are_computed_once_and_progress_counts_them_all(cache: StateCache) -> None:
    done: list[int] = []
    backbone = tiny_backbone(frozen_layers=2, cache=cache)
    with metered() as costs:
        states = backbone.states([EXAMPLES[0]] * 3, progress=done.append)
    assert (sum(done), cache.entries) == (3, 1)
    assert costs.tokens == len(states.encoded[0].ids) / 2
    assert_same(states.select([2]), states.select([0]))


@pytest.mark.parametrize(
    "options",
    [
        {"frozen_layers": 3},
        {"frozen_layers": 0},
        {"feature_layers": (1,)},
        {"weights": "other"},
        {"dtype": torch.bfloat16},
    ],
    ids=str,
)
def test_states_of_another_backbone_cut_feature_or_format_are_never_taken(
    options: dict[str, Any], cache: StateCache
) -> None:
    tiny_backbone(frozen_layers=2, cache=cache).states(EXAMPLES)
    options = {"frozen_layers": 2, **options}
    loaded = tiny_loaded(weights=options.pop("weights", "w"))
    loaded = replace(loaded, model=loaded.model.to(options.pop("dtype", torch.float32)))
    with metered() as costs:
        other = Backbone(loaded, cache=cache, **options).states(EXAMPLES)
    assert (costs.cache_hits, costs.cache_lookups) == (0, N)
    assert_same(other, Backbone(loaded, **options).states(EXAMPLES))


def test_the_template_and_the_text_decide_what_is_taken_the_label_does_not(cache: StateCache) -> None:
    backbone = tiny_backbone(frozen_layers=2, cache=cache)
    with metered() as same:
        backbone.states([Example.of_text("a b", "x")])
        backbone.states([Example.of_text("a b", "y", "id")])
    with metered() as others:
        backbone.states([Example.of_text("a c")])
        backbone.states([Example.of_text("a b")], "{text} is about")
    assert (same.cache_hits, same.cache_lookups) == (1, 2)
    assert (others.cache_hits, others.cache_lookups) == (0, 2)


def test_how_long_inputs_may_be_changes_no_features(cache: StateCache) -> None:
    tiny_backbone(frozen_layers=2, max_tokens=12, cache=cache).states([EXAMPLES[2]])
    with metered() as costs:
        found = tiny_backbone(frozen_layers=2, cache=cache).states([EXAMPLES[2]])
    assert costs.cache_hits == 1
    assert_same(found, tiny_backbone(frozen_layers=2).states([EXAMPLES[2]]))


def test_states_keep_the_backbones_number_format(cache: StateCache) -> None:
    loaded = replace(tiny_loaded(), model=tiny_model("llama").bfloat16())
    backbone = Backbone(loaded, frozen_layers=2, cache=cache)
    for _ in range(2):
        states = backbone.states(EXAMPLES)
        assert states.hidden is not None
        assert {one.dtype for one in states.hidden} == {torch.bfloat16}
        assert states.features.dtype == torch.float32


# Features and bounds


@pytest.mark.parametrize(
    ("architecture", "options", "reaches"),
    [
        ("bert", {}, True),
        ("bert", {"feature_layers": (1, 2)}, False),
        ("llama", {"frozen_layers": 0}, False),  # the last layer of a causal model predicts the next token
    ],
)
def test_features_of_an_encoder_reach_its_last_layer(architecture: str, options: dict[str, Any], reaches: bool) -> None:
    assert tiny_backbone(architecture, **options).features_reach_last_layer is reaches


def test_features_are_means_over_tokens_at_the_feature_layers_on_one_fixed_scale() -> None:
    backbone = tiny_backbone(frozen_layers=3, feature_layers=(1, 2))
    states = backbone.states(EXAMPLES)
    assert states.features.shape == (N, backbone.feature_size) == (N, 64)
    batch = states.collate(range(N), pad=1, device=torch.device("cpu"))
    with torch.no_grad():
        known = backbone.cut.model(batch.ids, attention_mask=batch.mask, output_hidden_states=True).hidden_states
    means = torch.stack(
        [
            torch.cat([known[layer][row, 1 : len(one.ids)].mean(0) for layer in (1, 2)])
            for row, one in enumerate(states.encoded)
        ]
    )
    # Each block has the norm of a standard normal vector; before that, one scale and shift per dimension, the same for
    # all examples, turned means into features.
    blocks = states.features.view(N, 2, -1)
    torch.testing.assert_close(blocks.norm(dim=2), torch.full((N, 2), 32**0.5))
    scale = backbone._features.means
    for index in range(2):
        standardised = (means.view(N, 2, -1)[:, index] - scale[index].mean) / scale[index].deviation
        torch.testing.assert_close(
            torch.nn.functional.cosine_similarity(blocks[:, index], standardised), torch.ones(N), rtol=0, atol=1e-4
        )


def test_a_backbone_starts_without_reading_the_sample_texts_and_meters_only_what_it_was_asked() -> None:
    with metered() as costs:
        backbone = tiny_backbone(frozen_layers=2)
        assert costs.tokens == 0
        states = backbone.states(EXAMPLES[:1])
    assert costs.tokens == len(states.encoded[0].ids) / 2


def test_no_examples_give_no_states() -> None:
    states = tiny_backbone(frozen_layers=2).states([])
    assert len(states) == 0
    assert states.features.shape == (0, tiny_backbone(frozen_layers=2).feature_size)


def test_inputs_longer_than_the_model_reads_are_refused_when_the_backbone_is_made() -> None:
    assert len(tiny_backbone("bert", max_tokens=160).states([Example.of_text("a " * 300)]).encoded[0].ids) == 160
    # RoBERTa and MPNet count positions from behind their padding index 1.
    for architecture in ("roberta", "mpnet"):
        states = tiny_backbone(architecture, max_tokens=158).states([Example.of_text("a " * 300)])
        assert len(states.encoded[0].ids) == 158
    for architecture, longest in (("bert", 160), ("roberta", 158), ("mpnet", 158)):
        with pytest.raises(ConfigError, match=f"at most {longest} tokens"):
            tiny_backbone(architecture, max_tokens=longest + 1)

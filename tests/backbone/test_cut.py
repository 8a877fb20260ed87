"""Prefix then suffix are the whole model, whatever the architecture, the cut, the padding, the thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.cut import Cut
from conpet.errors import BackboneError
from tests.helpers.backbones import CONFIGS, EXAMPLES, LAYERS, custom_model, mixed_lengths, tiny_loaded, tiny_model

THREADS = 6


def plain(model: nn.Module, ids: Tensor, mask: Tensor, **options: bool) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, return_dict=True, **options)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_prefix_then_suffix_is_the_plain_forward_at_every_cut(architecture: str) -> None:
    model = tiny_model(architecture)
    cut = Cut.of(model)
    ids, mask = mixed_lengths()
    expected = plain(model, ids, mask).last_hidden_state
    assert cut.layers == LAYERS
    for frozen_layers in range(LAYERS + 1):
        with torch.no_grad():
            states = cut.prefix([frozen_layers])(ids, mask)[frozen_layers] if frozen_layers else None
            found = cut.suffix(frozen_layers)(ids, mask, states)
        torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_suffix_sees_nothing_below_the_cut_but_the_states(architecture: str) -> None:
    cut = Cut.of(tiny_model(architecture))
    ids, mask = mixed_lengths()
    others = torch.randint(3, 200, ids.shape).where(mask.bool(), ids)
    with torch.no_grad():
        states = cut.prefix([2])(ids, mask)[2]
        own, foreign = cut.suffix(2)(ids, mask, states), cut.suffix(2)(others, mask, states)
        changed = cut.suffix(2)(ids, mask, states.flip(0))
    assert torch.equal(own[mask.bool()], foreign[mask.bool()])
    assert (own - changed).abs().max() > 0.1


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_prefix_gives_the_states_behind_every_layer_asked_for(architecture: str) -> None:
    model = tiny_model(architecture)
    ids, mask = mixed_lengths()
    known = plain(model, ids, mask, output_hidden_states=True).hidden_states
    with torch.no_grad():
        found = Cut.of(model).prefix([1, 3])(ids, mask)
    assert sorted(found) == [1, 3]
    for depth, states in found.items():
        torch.testing.assert_close(states[mask.bool()], known[depth][mask.bool()], rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "modernbert"])
def test_threads_with_different_inputs_share_one_prefix_and_suffix(architecture: str) -> None:
    cut = Cut.of(tiny_model(architecture))
    prefix, suffix = cut.prefix([2]), cut.suffix(2)
    inputs = [mixed_lengths(seed) for seed in range(THREADS)]
    inputs = [(ids[:, : 11 - number], mask[:, : 11 - number]) for number, (ids, mask) in enumerate(inputs)]
    together = Barrier(THREADS)

    def through(ids: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            return suffix(ids, mask, prefix(ids, mask)[2])

    def often(number: int) -> list[Tensor]:
        together.wait()
        return [through(*inputs[number]) for _ in range(15)]

    expected = [through(*some) for some in inputs]
    with ThreadPoolExecutor(THREADS) as pool:
        for number, results in enumerate(pool.map(often, range(THREADS))):
            assert all(torch.equal(result, expected[number]) for result in results)


def test_halves_share_the_weights_and_module_layers_in_one_suffix_touch_nothing_else() -> None:
    model = tiny_model("llama")
    cut = Cut.of(model)
    ids, mask = mixed_lengths()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = plain(model, ids, mask).last_hidden_state
    suffix, untouched = cut.suffix(2), cut.suffix(2)
    places = {tensor.data_ptr() for tensor in model.parameters()}
    assert {tensor.data_ptr() for tensor in suffix.shell.parameters()} <= places
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    inject_adapter_in_model(config, suffix.shell)
    with torch.no_grad():
        states = cut.prefix([2])(ids, mask)[2]
        assert torch.equal(untouched(ids, mask, states)[mask.bool()], expected[mask.bool()])
        assert not torch.equal(suffix(ids, mask, states)[mask.bool()], expected[mask.bool()])
    assert torch.equal(plain(model, ids, mask).last_hidden_state, expected)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    adapted = [name for name, _ in suffix.shell.named_parameters() if "lora_A" in name]
    assert [name.split(".")[1] for name in adapted] == ["2", "3"]  # the layers passed over hold nothing to adapt


@pytest.mark.parametrize("layers", ["list", "tuples"])
def test_a_model_no_library_knows_is_cut_if_its_layers_stand_in_one_list(layers: str) -> None:
    model = custom_model(layers)
    cut = Cut.of(model)
    ids, mask = mixed_lengths()
    expected = plain(model, ids, mask).last_hidden_state
    assert cut.layers == 3
    for frozen_layers in (1, 2, 3):
        assert cut.holds(frozen_layers)
        with torch.no_grad():
            states = cut.prefix([frozen_layers])(ids, mask)[frozen_layers]
            assert torch.equal(cut.suffix(frozen_layers)(ids, mask, states), expected)


@pytest.mark.parametrize("layers", ["named", "sum"])
def test_a_model_that_cannot_be_cut_works_whole_and_says_so(layers: str) -> None:
    loaded = tiny_loaded("llama", model=custom_model(layers))
    backbone = Backbone(loaded)
    assert (backbone.frozen_layers, backbone.feature_layers, backbone.cut.layers) == (0, (), 0)
    states = backbone.states(EXAMPLES)
    assert states.hidden is None
    assert states.features.shape == (len(EXAMPLES), 16)
    batch = states.collate(range(len(EXAMPLES)), pad=1, device=backbone.device)
    with torch.no_grad():
        found = backbone.suffix()(batch.ids, batch.mask, batch.hidden)
    assert torch.equal(found, plain(loaded.model, batch.ids, batch.mask).last_hidden_state)
    with pytest.raises(BackboneError, match="frozen_layers=0"):
        Backbone(loaded, frozen_layers=2)
    with pytest.raises(BackboneError, match="frozen_layers=0"):
        Backbone(loaded, frozen_layers=0, feature_layers=(1,))


def test_a_layer_that_is_not_there_is_refused_by_name() -> None:
    loaded = tiny_loaded("bert")
    for wrong in ({"frozen_layers": 5}, {"frozen_layers": -1}, {"feature_layers": (2, 7)}, {"feature_layers": (0,)}):
        with pytest.raises(BackboneError, match="has 4 layers"):
            Backbone(loaded, **wrong)
    with pytest.raises(BackboneError, match="has 4 layers"):
        Cut.of(loaded.model).suffix(5)
    with pytest.raises(BackboneError, match="use frozen_layers=0"):
        Cut(loaded.model, None).prefix([1])

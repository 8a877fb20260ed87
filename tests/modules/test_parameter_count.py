from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, LlamaModel

from conpet.errors import ConfigError
from conpet.modules.parameter_count import (
    backbone_parameters,
    count_parameters,
    llama_7b_config,
    llama_7b_count,
    lora_parameters,
)

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks transformers


def tiny_llama(**changes: object) -> LlamaConfig:
    sizes: dict[str, object] = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return LlamaConfig(**{**sizes, **changes})


def test_llama_7b_by_hand() -> None:
    layer = 4 * 4096 * 4096 + 3 * 4096 * 11_008 + 2 * 4096
    whole = 2 * 32_000 * 4096 + 32 * layer + 4096
    assert whole == 6_738_415_616
    assert backbone_parameters(llama_7b_config()) == whole
    assert lora_parameters(llama_7b_config(), ("q_proj", "k_proj"), rank=4) == 32 * 2 * 4 * (4096 + 4096) == 2_097_152


def test_the_papers_module_is_more_than_three_thousand_times_smaller_than_llama_7b() -> None:
    count = llama_7b_count()
    assert int(count.ratio) == 3213
    assert count.head == 15 * 4096 + 15
    assert int(count.ratio_with_head) == 3121
    assert llama_7b_count(labels=36).ratio_with_head > 3000 > llama_7b_count(labels=37).ratio_with_head


def test_the_count_reads_as_one_line() -> None:
    assert str(llama_7b_count()) == (
        "2,097,152 trained of 6,738,415,616 parameters: 3,213 times fewer; "
        "2,158,607 with a head over 15 labels: 3,122 times"
    )


@pytest.mark.parametrize("tied", [True, False])
def test_agrees_with_a_real_model_and_peft(tied: bool) -> None:
    config = tiny_llama(architectures=["LlamaForCausalLM"], tie_word_embeddings=tied)
    model = LlamaForCausalLM(config)
    assert backbone_parameters(config) == model.num_parameters()
    targets = ["q_proj", "k_proj", "down_proj"]
    for layers in (None, [0, 2]):
        tuned = get_peft_model(
            LlamaForCausalLM(config), LoraConfig(r=5, target_modules=targets, layers_to_transform=layers)
        )
        assert lora_parameters(config, targets, 5, layers) == tuned.get_nb_trainable_parameters()[0]


def test_a_configuration_that_names_no_class_is_counted_without_language_model_head() -> None:
    assert backbone_parameters(tiny_llama()) == LlamaModel(tiny_llama()).num_parameters()


def test_an_encoder_is_counted_too() -> None:
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    tuned = get_peft_model(BertModel(config), LoraConfig(r=2, target_modules=["query", "value"]))
    count = count_parameters(config, ("query", "value"), rank=2, labels=3)
    assert count.backbone == BertModel(config).num_parameters()
    assert count.module == tuned.get_nb_trainable_parameters()[0]
    assert count.head == sum(parameter.numel() for parameter in torch.nn.Linear(16, 3).parameters())


def test_unknown_targets_and_layers_are_named() -> None:
    with pytest.raises(ConfigError, match="no linear map query, wq"):
        lora_parameters(tiny_llama(), ("q_proj", "wq", "query"), rank=4)
    with pytest.raises(ConfigError, match="in layer 3, 9"):
        lora_parameters(tiny_llama(), ("q_proj",), rank=4, layers=[2, 3, 9])

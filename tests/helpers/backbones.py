"""Tiny random models of many architectures, with tokenizers, for the tests of backbones and modules."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone, Loaded
from conpet.backbone.encode import Encoder
from conpet.backbone.fingerprint import Fingerprint
from conpet.data import Example, Style

VOCABULARY = 300
LAYERS = 4
TEXTS = (
    "pay my bill",
    "turn off all the lights in the kitchen please",
    "hi",
    "what is the weather in 東京 today?",
    "a b",
)
EXAMPLES = tuple(Example.of_text(text) for text in TEXTS)

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 160,
    "initializer_range": 0.2,  # so large that every layer matters
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
CONFIGS: dict[str, Any] = {
    "llama": lambda: tf.LlamaConfig(**_GROUPED),
    "qwen3": lambda: tf.Qwen3Config(
        **_GROUPED, head_dim=8, use_sliding_window=True, max_window_layers=2, sliding_window=4
    ),
    "mistral": lambda: tf.MistralConfig(**_GROUPED, sliding_window=5),
    "gemma": lambda: tf.GemmaConfig(**_GROUPED, head_dim=8),
    "gemma3": lambda: tf.Gemma3TextConfig(**_GROUPED, head_dim=8, sliding_window=4),
    "gpt-neox": lambda: tf.GPTNeoXConfig(**_SIZES),
    "gpt2": lambda: tf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=160, bos_token_id=0, eos_token_id=2
    ),
    "bert": lambda: tf.BertConfig(**_SIZES),
    "roberta": lambda: tf.RobertaConfig(**_SIZES),
    "mpnet": lambda: tf.MPNetConfig(**_SIZES),
    "modernbert": lambda: tf.ModernBertConfig(**_SIZES, cls_token_id=0, sep_token_id=2, local_attention=6),
    "distilbert": lambda: tf.DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, n_layers=LAYERS, n_heads=4, hidden_dim=48, pad_token_id=1
    ),
}
OWN_ATTENTION = ("mpnet",)
"""Architectures that compute attention themselves, without the attention interface of transformers."""
CAUSAL = ("llama", "qwen3", "mistral", "gemma", "gemma3", "gpt-neox", "gpt2")


def tiny_model(architecture: str, seed: int = 0) -> nn.Module:
    """Return a frozen random model."""
    torch.manual_seed(seed)
    attention = "eager" if architecture in OWN_ATTENTION else "sdpa"
    model: nn.Module = tf.AutoModel.from_config(CONFIGS[architecture](), attn_implementation=attention)
    return model.eval().requires_grad_(False)


def mixed_lengths(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random ids and mask of rows of 11, 3, 7, 1 and 9 tokens, padded on the right."""
    lengths = (11, 3, 7, 1, 9)
    ids = torch.randint(3, VOCABULARY, (len(lengths), 11), generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    return ids.where(mask.bool(), torch.tensor(1)), mask


def byte_tokenizer() -> Any:
    """Return a causal model's tokenizer: bytes; `<s>` is known but never added."""
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>"}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special.values(), *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def mask_tokenizer(*, has_mask: bool = True) -> Any:
    """Return a BERT-like tokenizer: characters as word pieces between `[CLS]` and `[SEP]`."""
    names = {"cls_token": "[CLS]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    names |= {"mask_token": "[MASK]"} if has_mask else {}
    characters = [chr(code) for code in range(33, 127)] + list("東京天気はぁあ")
    pieces = [*names.values(), *characters, *(f"##{character}" for character in characters)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=names["unk_token"]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    around = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    return tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def tokenizer_of(architecture: str) -> Any:
    return byte_tokenizer() if architecture in CAUSAL else mask_tokenizer()


def write_model(folder: Path, architecture: str = "llama", seed: int = 0) -> Path:
    """Write a tiny model with its tokenizer in Hugging Face format."""
    tiny_model(architecture, seed).save_pretrained(folder)
    tokenizer_of(architecture).save_pretrained(folder)
    return folder


def tiny_loaded(architecture: str = "llama", *, model: nn.Module | None = None, weights: str = "w") -> Loaded:
    style = Style.CAUSAL if architecture in CAUSAL else Style.MASKED
    encoder = Encoder(tokenizer_of(architecture), style)
    fingerprint = Fingerprint(weights, "t", "c")
    return Loaded(architecture, model or tiny_model(architecture), encoder, fingerprint, torch.device("cpu"))


def tiny_backbone(architecture: str = "llama", **options: Any) -> Backbone:
    return Backbone(tiny_loaded(architecture), **options)


class Block(nn.Module):
    """One layer of the models below: a residual map, and the mean of the tokens so far."""

    def __init__(self, *, as_tuple: bool = False) -> None:
        super().__init__()
        self.as_tuple = as_tuple
        self.mix = nn.Linear(16, 16)

    def forward(self, hidden: Tensor) -> Any:
        steps = torch.arange(1, hidden.shape[1] + 1).view(1, -1, 1)
        hidden = hidden + torch.tanh(self.mix(hidden.cumsum(1) / steps))
        return (hidden,) if self.as_tuple else hidden


class CustomModel(nn.Module):
    """A causal model no library knows.

    Args:
        layers: "list" of layers in a row; "tuples" from each; "sum" of what all layers give; "named" layers, no list.
    """

    def __init__(self, layers: str = "list") -> None:
        super().__init__()
        self.kind = layers
        self.config = SimpleNamespace(hidden_size=16, num_hidden_layers=3)
        self.embed = nn.Embedding(VOCABULARY, 16)
        if layers == "named":
            self.first, self.second = Block(), Block()
        else:
            self.blocks = nn.ModuleList(Block(as_tuple=layers == "tuples") for _ in range(3))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, return_dict: bool) -> Any:
        hidden = self.embed(input_ids)
        if self.kind == "named":
            return SimpleNamespace(last_hidden_state=self.second(self.first(hidden)))
        total = torch.zeros_like(hidden)
        for block in self.blocks:
            output = block(hidden)
            hidden = output[0] if isinstance(output, tuple) else output
            total = total + hidden
        return SimpleNamespace(last_hidden_state=total if self.kind == "sum" else hidden)


def custom_model(layers: str) -> nn.Module:
    torch.manual_seed(0)
    return CustomModel(layers).eval().requires_grad_(False)

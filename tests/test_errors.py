"""Errors say what happened: memory that ran out, errors of the system, many wrong rows."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import transformers
from safetensors import SafetensorError

from conpet.artifact import Artifact, ArtifactReader, write_artifact
from conpet.backbone import cut, frozen_linear
from conpet.backbone.backbone import Backbone
from conpet.backbone.load import load_backbone
from conpet.config import Settings
from conpet.errors import (
    BackboneError,
    DataError,
    OutOfMemoryError,
    Problem,
    Scope,
    check_memory,
    is_out_of_memory,
    reason_of,
)
from conpet.modules.grouped_matmul import BatchedMatmul, time_multiply
from conpet.modules.kinds import prefix
from conpet.modules.module import PetModule
from conpet.store import Store
from tests.helpers.backbones import tiny_backbone, tiny_loaded
from tests.helpers.cli import conpet
from tests.helpers.workspaces import workspace


def of_the_cpu() -> Exception:
    """Return the error that torch raises when the system cannot allocate the memory."""
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    return raised.value


FULL = {
    "cpu": of_the_cpu(),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "system": OSError(12, "Cannot allocate memory"),
    "python": MemoryError(),
}
of_torch = pytest.mark.parametrize("full", [FULL["cpu"], FULL["cuda"]], ids=["cpu", "cuda"])


def raising(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize("full", FULL.values(), ids=FULL)
def test_memory_that_ran_out_is_known_from_other_errors(full: Exception) -> None:
    assert is_out_of_memory(full)
    with pytest.raises(OutOfMemoryError, match=r"while this was done .*smaller backbone") as raised:
        check_memory(full, "this was done")
    assert isinstance(raised.value, MemoryError)
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), OSError(28, "No space left on device")):
        assert not is_out_of_memory(other)
        check_memory(other, "this was done")


@of_torch
def test_a_backbone_is_not_uncuttable_because_memory_ran_out(full: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_loaded()
    whole = cut.Cut.of(loaded.model)
    monkeypatch.setattr(cut, "run", raising(full))
    with pytest.raises(OutOfMemoryError, match="cut into layers"):
        Backbone(loaded)
    with pytest.raises(OutOfMemoryError, match="cut at layer 2"):
        whole.holds(2)
    monkeypatch.setattr(cut, "run", raising(RuntimeError("shapes cannot be multiplied")))
    assert Backbone(loaded).cut.path is None


@of_torch
def test_a_model_that_does_not_fit_is_not_called_broken(
    full: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", raising(full))
    with pytest.raises(OutOfMemoryError, match="tiny-random was loaded"):
        load_backbone("tiny-random", dtype="float32", device="cpu")
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", raising(RuntimeError("wrong shapes")))
    with pytest.raises(BackboneError, match="wrong shapes"):
        load_backbone("tiny-random", dtype="float32", device="cpu")


@of_torch
def test_kernels_and_ways_to_multiply_are_not_given_up_because_memory_ran_out(
    full: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    way, given = BatchedMatmul([(0, 1)], torch.device("cpu")), torch.ones(1, 2, 2)
    monkeypatch.setattr(frozen_linear.FrozenLinear, "forward", raising(full))
    monkeypatch.setattr(BatchedMatmul, "multiply", raising(full))
    with pytest.raises(OutOfMemoryError, match="kernels"):
        frozen_linear._has_kernels.__wrapped__()
    with pytest.raises(OutOfMemoryError, match="mixed batch"):
        time_multiply(way, given, given)
    monkeypatch.setattr(frozen_linear.FrozenLinear, "forward", raising(RuntimeError("no such kernel")))
    monkeypatch.setattr(BatchedMatmul, "multiply", raising(NotImplementedError()))
    assert not frozen_linear._has_kernels.__wrapped__()
    assert time_multiply(way, given, given) == float("inf")


@of_torch
def test_a_kind_of_module_is_not_refused_because_memory_ran_out(
    full: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny_backbone()
    monkeypatch.setattr(prefix, "probe", raising(full))
    with pytest.raises(OutOfMemoryError, match="attention modules"):
        PetModule(backbone, Settings.parse({}).for_task({"module": "prefix"}), seed=0)


def test_a_file_is_not_called_damaged_because_memory_ran_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_artifact(tmp_path / "it", Artifact(tensors={"some": {"one": torch.ones(3)}}))
    full = SafetensorError("Error: Cannot allocate memory (os error 12)")
    monkeypatch.setattr("safetensors.torch.load", raising(full))
    with pytest.raises(OutOfMemoryError, match="was read"):
        ArtifactReader(tmp_path / "it", manifest).tensors("some")


def test_the_command_line_tells_what_helps_and_calls_it_no_mistake_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workspace(tmp_path, 1).path
    monkeypatch.setattr(Store, "events", raising(FULL["cpu"]))
    done = conpet("report", path)
    assert done.code == 1
    assert "memory ran out" in done.err
    assert "smaller batches" in done.err
    assert "report it" not in done.err


def test_errors_of_the_system_are_said_in_words_with_their_file() -> None:
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/rows.csv")
    assert reason_of(denied).startswith("/data/rows.csv: permission denied; check its owner")
    assert reason_of(denied, "/data/rows.csv").startswith("permission denied; ")
    assert reason_of(denied, "/data/rows.csv", advice=False) == "permission denied"
    assert reason_of(OSError(errno.ENOSPC, "no space left on the disk (quota)")) == "no space left on the disk (quota)"
    assert reason_of(OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))) == "address already in use"
    assert reason_of(ValueError("a text")) == "a text"
    assert reason_of(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_a_command_says_errors_of_the_system_in_words(tmp_path: Path) -> None:
    refused = conpet("plan", "--show-stages", "--stages", tmp_path)
    assert (refused.code, "it is a folder; name a file" in refused.err, "Errno" in refused.err) == (1, True, False)


def test_many_problems_are_counted_by_their_reason() -> None:
    problems = [Problem(f"{number}.csv", None, "missing label") for number in range(1559)]
    shown = str(DataError("1,560 problems", [*problems, Problem("rows.csv", 1600, "empty text")]))
    assert len(shown.splitlines()) == 12
    assert shown.endswith("... and 1,550 more: missing label (1,549), empty text (1)")


def test_what_is_wrong_in_many_rows_of_a_file_is_one_line_that_names_all_of_them() -> None:
    rows = [*range(2, 12), *range(20, 40), 50]
    problems = [Problem("a.csv", row, "is not UTF-8 text", scope=Scope.PARSING) for row in rows]
    error = DataError("wrong", [*problems, Problem("a.csv", 15, "empty text"), Problem("b.csv", 1, "empty text")])
    assert str(error) == (
        "wrong\n  a.csv: 31 rows (2-11, 20-39, 50): is not UTF-8 text\n  a.csv: row 15: empty text\n"
        "  b.csv: row 1: empty text"
    )
    few = DataError("wrong", problems[:10])
    assert str(few).count("is not UTF-8 text") == 10

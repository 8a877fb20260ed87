"""A full disk: a workspace keeps room for what frees storage, is read all the same, and refuses the rest clearly."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from conpet.commands.space import bytes_to_write
from conpet.errors import DiskFullError
from conpet.store import Change, Store
from tests.helpers.store import commit, learn, make_store, module
from tests.helpers.workspaces import frozen_state, stream, workspace


def reserved(store: Store) -> int:
    """Return the bytes on the disk that a workspace keeps for freeing storage."""
    file = store.path / "reserve"
    return 512 * file.stat().st_blocks if file.exists() else 0


def test_room_is_kept_and_given_to_changes_that_free_storage(tmp_path: Path) -> None:
    store = make_store(tmp_path / "ws")
    commit(store, learn("a", shared={"statistics": module(1.0)}))
    assert reserved(store) > 1_000_000
    assert store.bytes_on_disk() < reserved(store)
    for verb, room in (("learn", True), ("remove", False), ("retire", False), ("drop", False)):
        with store.write(verb):
            assert bool(reserved(store)) == room
        assert reserved(store)


def test_the_room_grows_with_what_a_removal_writes_again(tmp_path: Path) -> None:
    small, large = (
        workspace(tmp_path, 1, str(width), method="ranpac", **{"features.projection": width}) for width in (16, 1024)
    )
    written = [sum(reader.bytes for reader in one.store.snapshot().shared.values()) for one in (small, large)]
    assert written[1] > 2 * written[0]
    assert reserved(large.store) - reserved(small.store) >= 0.9 * (written[1] - written[0])


def test_learning_on_a_full_disk_says_how_much_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = workspace(tmp_path, 1)
    sync = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with frozen_state(learner):
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError, match=r"at least \d[\d.]* MB are needed, and [\d,.]+ MB are free") as refused:
            learner.learn(stream()[1])
        monkeypatch.setattr(os, "fsync", sync)
    assert refused.value.errno == errno.ENOSPC
    assert str(learner.path) in str(refused.value)
    assert not learner.learn(stream()[1]).skipped


def test_what_does_not_fit_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, stages = workspace(tmp_path, 1), []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 20_000})())
    with (
        frozen_state(learner),
        pytest.raises(
            DiskFullError, match=r"at least 0\.\d MB are needed, and 0\.0 MB are free\. Nothing was changed"
        ) as refused,
    ):
        learner.learn(stream()[1], progress=lambda stage, done: stages.append(stage))
    assert str(learner.path) in str(refused.value)
    assert not stages
    monkeypatch.undo()
    assert not learner.learn(stream()[1]).skipped


@pytest.mark.parametrize(
    "settings",
    [{}, {"replay": {"latent_only": True}}, {"replay": {"memory_examples": 4}}, {"method": "lda"}, {"method": "emr"}],
    ids=["dynamic", "latent", "limited", "lda", "emr"],
)
def test_the_estimate_is_most_of_what_is_written_and_never_more(tmp_path: Path, settings: dict[str, object]) -> None:
    for known in (0, 1):
        learner = workspace(tmp_path, known, f"ws-{known}", **settings)
        before = {path.name for path in (learner.path / "objects").iterdir()}
        task = stream()[known]
        estimate = bytes_to_write([task], learner.store.snapshot(), learner.backbone, learner.settings)
        learner.learn(task)
        new = [path for path in (learner.path / "objects").iterdir() if path.name not in before]
        written = sum(file.stat().st_size for folder in new for file in folder.rglob("*"))
        assert 0.3 * written < estimate <= written


def test_a_reserve_that_cannot_be_kept_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "ws")

    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    commit(store, learn("a"), Change("remove", "a", remove=True))
    assert not reserved(store)
    assert store.generation() == 3

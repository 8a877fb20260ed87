"""A pinned generation can be made present again, exactly, and costs storage until it is dropped."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from conpet.errors import ConfigError, UnknownNameError
from conpet.store import MODULE, Change, SideObject, Snapshot, Store
from tests.helpers.store import (
    commit,
    describe_snapshot,
    folders,
    folders_in_use,
    history,
    learn,
    make_store,
    module,
    new_version,
)


def taught(tmp_path: Path) -> Store:
    store = make_store(tmp_path / "ws")
    for step in range(4):
        commit(store, history(step))
    return store


def without_generation(snapshot: Snapshot) -> dict[str, object]:
    described = describe_snapshot(snapshot)
    del described["generation"]
    return described | {"settings": snapshot.header.settings}


def seen(store: Store) -> dict[str, object]:
    with store.snapshot() as snapshot:
        return without_generation(snapshot)


REPLACED = Change(
    "consolidate",
    side_objects=(SideObject("a", 1, MODULE, module(9.0)), SideObject("a", 2, MODULE, None)),
    shared={"statistics": module(9.0), "selector": None},
    settings={"backbone": {"frozen_layers": 2}},
    pin=True,
)


def test_a_change_that_pins_may_replace_modules_and_the_former_generation_comes_back(tmp_path: Path) -> None:
    store = taught(tmp_path)
    before, generation = seen(store), store.generation()
    commit(store, REPLACED)
    after = seen(store)
    assert after != before
    assert [snapshot.generation for snapshot in store.pinned()] == [generation]
    assert without_generation(store.pinned_snapshot(generation)) == before
    commit(store, learn("c", 5.0), Change("remove", "b", remove=True))
    later = seen(store)
    commit(store, Change("restore", pin=True, restore=generation))
    assert seen(store) == before == seen(Store.open(store.path))
    assert store.events()[-1].restores == generation
    assert store.verify() == []
    commit(store, Change("restore", pin=True, restore=generation + 3))
    assert seen(store) == later == seen(Store.open(store.path))


def test_without_a_pin_a_module_stays_as_it_is(tmp_path: Path) -> None:
    store = taught(tmp_path)
    for artifact in (module(9.0), None):
        with pytest.raises(ConfigError, match="version 1 of task 'a'"):
            commit(store, Change("x", side_objects=(SideObject("a", 1, MODULE, artifact),)))


def test_readers_that_had_the_workspace_open_see_what_is_restored(tmp_path: Path) -> None:
    store = taught(tmp_path)
    reader, idle = Store.open(store.path), Store.open(store.path)
    before, generation = seen(reader), store.generation()
    assert seen(idle) == before
    commit(store, REPLACED, learn("c", 5.0))
    assert seen(reader) == seen(store)
    held = reader.snapshot()
    commit(store, Change("restore", pin=True, restore=generation))
    assert seen(reader) == before == seen(idle)  # one of them missed the generations between
    assert without_generation(held)["settings"] == {"backbone": {"frozen_layers": 2}}
    commit(store, learn("d", 6.0))
    assert seen(reader) == seen(idle) == seen(store) == seen(Store.open(store.path))


def test_versions_learned_after_going_back_get_numbers_of_their_own(tmp_path: Path) -> None:
    store = taught(tmp_path)
    generation = store.generation()
    commit(store, REPLACED, learn("a", 5.0), Change("restore", pin=True, restore=generation), learn("a", 6.0))
    with store.snapshot() as snapshot:
        assert [version.number for version in snapshot.task("a").versions] == [1, 2, 4]


def test_bytes_are_those_of_the_present_generation(tmp_path: Path) -> None:
    store = taught(tmp_path)
    generation = store.generation()
    commit(store, REPLACED)
    for change in (None, learn("c", 5.0), Change("restore", pin=True, restore=generation), learn("a", 1.5)):
        if change:
            commit(store, change)
        with store.snapshot() as snapshot:
            assert store.events()[-1].bytes_stored == sum(reader.bytes for reader in snapshot.readers())


def test_what_only_a_dropped_generation_needs_is_deleted(tmp_path: Path) -> None:
    store = taught(tmp_path)
    generation = store.generation()
    commit(store, REPLACED)
    assert folders(store) > folders_in_use(store)
    with store.write("drop") as writer:
        writer.unpin(generation)
    assert folders(store) == folders_in_use(store)
    assert store.pinned() == []
    with pytest.raises(UnknownNameError, match=rf"generation {generation} is not kept.*kept: none"):
        commit(store, Change("restore", pin=True, restore=generation))
    with store.write("drop") as writer, pytest.raises(UnknownNameError, match="is not kept"):
        writer.unpin(generation)


def test_a_change_can_drop_generations_in_the_same_step(tmp_path: Path) -> None:
    store = taught(tmp_path)
    generation = store.generation()
    commit(store, REPLACED, Change("remove", "b", remove=True, unpinned=(generation,)))
    assert folders(store) == folders_in_use(store)
    assert not [path for path in store.path.rglob("*.jsonl") if b"less" in path.read_bytes()]


def test_a_reader_of_a_pinned_generation_keeps_its_files(tmp_path: Path) -> None:
    store = taught(tmp_path)
    generation = store.generation()
    commit(store, REPLACED)
    kept = store.pinned_snapshot(generation)
    with store.write("drop") as writer:
        writer.unpin(generation)
    assert kept.task("a").version(2).objects[MODULE].document("adapter_config") == {"r": 2.0}
    kept.close()
    commit(store, Change("x"))
    assert folders(store) == folders_in_use(store)


def test_going_back_and_forth_keeps_no_generation_twice(tmp_path: Path) -> None:
    store = taught(tmp_path)
    first = store.generation()
    commit(store, REPLACED)
    second = store.generation()
    for _ in range(3):
        commit(store, Change("restore", pin=True, restore=first), Change("restore", pin=True, restore=second))
    assert [snapshot.generation for snapshot in store.pinned()] == [first, second]


def test_damage_to_a_pinned_generation_is_found(tmp_path: Path) -> None:
    store = taught(tmp_path)
    generation = store.generation()
    commit(store, REPLACED)
    folder = store.pinned_snapshot(generation).task("a").version(2).objects[MODULE].folder
    (folder / "adapter_config.json").write_text("{}")
    assert [str(folder) in str(problem) for problem in store.verify()] == [True]


def test_a_restore_excludes_other_changes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="in a change of its own"):
        Change("restore", "a", new_version=new_version(1.0), restore=1)
    store = taught(tmp_path)
    with pytest.raises(UnknownNameError, match="generation 2 is not kept"):
        commit(store, Change("restore", restore=2))


def _restore(path: Path, generation: int) -> None:
    commit(Store.open(path), Change("restore", pin=True, restore=generation))


def test_another_process_can_go_back(tmp_path: Path) -> None:
    store = taught(tmp_path)
    before, generation = seen(store), store.generation()
    commit(store, REPLACED)
    child = multiprocessing.get_context("spawn").Process(target=_restore, args=(store.path, generation))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert seen(store) == before

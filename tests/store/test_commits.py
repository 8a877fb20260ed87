"""What a commit changes, refuses and remembers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from conpet.errors import ConfigError, CorruptionError, UnknownNameError
from conpet.store import MODULE, Artifact, Change, Cost, Metric, NewVersion, Reference, SideObject, Store
from tests.helpers.store import (
    commit,
    describe_snapshot,
    folders,
    folders_in_use,
    learn,
    make_store,
    memory,
    module,
    new_version,
    read_all,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "ws")


def rollback(task: str, number: int) -> Change:
    return Change("rollback", task, activate=number)


def test_learning_makes_a_task_with_an_active_version(store: Store) -> None:
    labels = ("振込", "残高")
    new = NewVersion("d1", labels, {MODULE: module(1.0)}, {"kind": "text"}, parameters=12, head_parameters=3)
    commit(store, Change("learn", "口座", new))
    version = Store.open(store.path).snapshot().task("口座").active
    assert (version.task, version.number, version.labels, version.digest) == ("口座", 1, labels, "d1")
    assert (version.parameters, version.head_parameters, version.description) == (12, 3, {"kind": "text"})
    assert version.module is not None
    assert version.module.tensors("adapter_model")["w"].tolist() == [[1.0] * 2] * 3
    assert version.bytes == version.module.bytes > 0


def test_learning_again_makes_a_new_version_and_keeps_the_old_bytes(store: Store) -> None:
    commit(store, learn("a", 1.0))
    before = store.snapshot().task("a").active
    commit(store, learn("b"), learn("a", 2.0))
    task = store.snapshot().task("a")
    assert [(version.number, version.active) for version in task.versions] == [(1, False), (2, True)]
    former = task.version(1).module
    assert before.module is not None
    assert former is not None
    assert former.manifest == before.module.manifest
    assert [task.name for task in store.snapshot().tasks] == ["a", "b"]
    with pytest.raises(UnknownNameError, match="no version 7; have: 1, 2"):
        task.version(7)


def test_rollback_activates_an_earlier_version_and_keeps_the_later(store: Store) -> None:
    commit(store, learn("a", 1.0), learn("a", 2.0), rollback("a", 1))
    task = store.snapshot().task("a")
    assert task.active.number == 1
    assert len(task.versions) == 2
    commit(store, rollback("a", 2))
    assert store.snapshot().task("a").active.number == 2


def test_removing_a_task_takes_its_objects_off_the_disk_and_never_reuses_its_numbers(store: Store) -> None:
    commit(store, learn("a"), learn("b"), learn("b"), Change("remove", "b", remove=True))
    assert [task.name for task in store.snapshot().tasks] == ["a"]
    assert not any("-b-" in name for name in folders(store))
    commit(store, learn("b", 5.0))
    assert store.snapshot().task("b").active.number == 3
    assert [(e.verb, e.task, e.version) for e in store.events()][1:] == [
        ("learn", "a", 1),
        ("learn", "b", 1),
        ("learn", "b", 2),
        ("remove", "b", None),
        ("learn", "b", 3),
    ]


def test_shared_slots_and_side_objects_are_superseded_and_the_old_deleted(store: Store) -> None:
    commit(store, learn("a", shared={"selector": module(1.0), "calibration": module(9.0)}))
    side = SideObject("a", 1, "memory", memory("x", "y"))
    commit(store, Change("tune", side_objects=(side,), shared={"selector": module(2.0), "calibration": None}))
    snapshot = store.snapshot()
    assert read_all(snapshot.shared["selector"])["config"] == {"r": 2.0}
    assert list(snapshot.shared) == ["selector"]
    assert read_all(snapshot.task("a").active.objects["memory"]) == {"examples": [{"text": "x"}, {"text": "y"}]}
    assert folders(store) == folders_in_use(store)
    assert len(folders(store)) == 3


def test_a_module_can_be_added_once_and_never_replaced(store: Store) -> None:
    commit(store, Change("learn", "a", NewVersion("d", ("x", "y"))))
    assert store.snapshot().task("a").active.module is None
    commit(store, Change("train", side_objects=(SideObject("a", 1, MODULE, module(1.0)),)))
    for artifact, message in ((module(2.0), "already has a module"), (None, "cannot be changed or removed")):
        with pytest.raises(ConfigError, match=message):
            commit(store, Change("train", side_objects=(SideObject("a", 1, MODULE, artifact),)))
    assert read_all(store.snapshot().task("a").active.objects[MODULE])["config"] == {"r": 1.0}


def test_a_module_can_lose_files_and_nothing_else(store: Store) -> None:
    commit(store, learn("a"))
    whole, bytes_before = module(1.0), store.events()[-1].bytes_stored
    lighter = Artifact(documents=whole.documents)
    commit(store, Change("merge", side_objects=(SideObject("a", 1, MODULE, lighter),)))
    reader = store.snapshot().task("a").active.objects[MODULE]
    assert (reader.has("adapter_model"), reader.document("adapter_config")) == (False, {"r": 1.0})
    assert store.events()[-1].bytes_stored < bytes_before
    for other in (Artifact(documents={"adapter_config": {"r": 2.0}}), whole):
        with pytest.raises(ConfigError, match="already has a module"):
            commit(store, Change("merge", side_objects=(SideObject("a", 1, MODULE, other),)))
    assert folders(store) == folders_in_use(store)


def test_versions_not_in_use_can_be_dropped_with_all_they_hold(store: Store) -> None:
    commit(store, learn("a"), learn("a", 2.0), learn("b"))
    for change in (
        Change("retire", dropped=(("a", 2),)),
        Change("retire", "a", activate=1, dropped=(("a", 1),)),
    ):
        with pytest.raises(ConfigError, match="which is active"):
            commit(store, change)
    commit(store, Change("retire", "a", new_version(3.0), dropped=(("a", 1), ("a", 2))))
    assert [(one.task, one.number, one.active) for one in store.snapshot().versions] == [("a", 3, True), ("b", 1, True)]
    assert folders(store) == folders_in_use(store)
    with pytest.raises(UnknownNameError, match="no version 1; have: 3"):
        commit(store, Change("retire", dropped=(("a", 1),)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rollback("b", 1), "no task 'b'.*have: 'a'"),
        (rollback("a", 2), "no version 2; have: 1"),
        (Change("remove", "b", remove=True), "no task 'b'"),
        (Change("x", side_objects=(SideObject("a", 2, "memory", None),)), "no version 2"),
    ],
)
def test_unknown_tasks_and_versions_are_named_and_nothing_changes(store: Store, change: Change, message: str) -> None:
    commit(store, learn("a"))
    before = describe_snapshot(store.snapshot())
    with pytest.raises(UnknownNameError, match=message):
        commit(store, change)
    assert describe_snapshot(store.snapshot()) == before


def test_contradicting_changes_are_refused(store: Store) -> None:
    commit(store, learn("a"))
    with pytest.raises(ConfigError, match="set one of"):
        Change("x", "a", new_version(1.0), remove=True)
    with pytest.raises(ConfigError, match="name the task"):
        Change("x", remove=True)
    with pytest.raises(ConfigError, match="cannot name"):
        Change("x", shared={"../selector": module(1.0)})
    side = SideObject("a", 1, "memory", memory())
    with pytest.raises(ConfigError, match="writes a slot twice"):
        commit(store, Change("x", side_objects=(side, side)))
    with pytest.raises(ConfigError, match="removes task 'a' and writes"):
        commit(store, Change("x", "a", remove=True, side_objects=(side,)))
    assert store.generation() == 2


def test_the_history_gives_back_what_was_recorded(store: Store) -> None:
    metrics = (
        Metric("a", "accuracy", 0.9, 10),
        Metric("a", "selector_accuracy", 0.8, 10),
        Metric("b", "mean_absolute_error", 12.25, 4),
    )
    references = (Reference("ridge", 11 / 14, 14), Reference("lda", 12 / 14, 14))
    costs = (Cost("selector", 0.25, steps=3), Cost("module", 1.5, 100, 50, 4, 12, 6, 1 << 40))
    change = learn(
        "a", metrics=metrics, references=references, costs=costs, detail={"n": 1}, confusion=[[1, 0], [2, 3]]
    )
    with store.write("learn") as writer:
        made = writer.commit(change)
        later = writer.commit(learn("b"))
    created, first, second = store.events()
    assert (created.verb, created.id, created.confusion) == ("create", 1, None)
    assert (first.metrics, first.references, first.costs) == (metrics, references, costs)
    assert (first.detail, first.confusion) == ({"n": 1}, [[1, 0], [2, 3]])
    assert [made, later] == [first, second] == store.events(after=1)
    assert created.time <= first.time <= second.time
    assert first.time.utcoffset() is not None
    snapshot = store.snapshot()
    assert first.bytes_stored == snapshot.task("a").active.bytes
    assert second.bytes_stored == sum(reader.bytes for reader in snapshot.readers())


def test_a_long_lived_reader_notices_a_change_and_keeps_its_own_view(store: Store) -> None:
    commit(store, learn("a", shared={"selector": module(1.0)}))
    old = store.snapshot()
    assert store.generation() == old.generation
    expected = describe_snapshot(store.snapshot())
    for value in range(4):
        commit(store, learn("a", float(value), shared={"selector": module(2.0)}))
    commit(store, Change("remove", "a", remove=True))
    assert store.generation() == old.generation + 5
    assert describe_snapshot(old) == expected  # read for the first time now
    selector = old.shared["selector"]
    del old
    commit(store, Change("nothing"))
    assert read_all(selector)["config"] == {"r": 1.0}  # a reader alone holds the lease, too
    del selector
    commit(store, Change("nothing"))
    assert folders(store) == folders_in_use(store)


def test_a_closed_snapshot_no_longer_holds_objects_but_tensors_stay(store: Store) -> None:
    commit(store, Change("x", shared={"selector": module(1.0)}))
    with store.snapshot() as snapshot:
        tensors = snapshot.shared["selector"].tensors("adapter_model")
    commit(store, Change("x", shared={"selector": None}))
    assert folders(store) == set()
    assert tensors["w"].tolist() == [[1.0] * 2] * 3
    snapshot.close()


def test_the_number_of_queries_does_not_grow_with_versions(store: Store) -> None:
    statements: list[str] = []

    def count(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    counts = []
    for round_ in range(3):
        commit(store, *(learn(f"t{round_}-{number}") for number in range(3)))
        statements.clear()
        event.listen(Engine, "before_cursor_execute", count)
        store.snapshot().close()
        event.remove(Engine, "before_cursor_execute", count)
        counts.append(len(statements))
    assert counts[0] < counts[1] == counts[2] < 15  # from the second on, what changed since is looked for first


def test_verify_lists_every_damage(store: Store) -> None:
    commit(store, learn("a"), learn("b", shared={"selector": module(3.0)}))
    assert store.verify() == []
    with store.snapshot() as snapshot:
        for reader in (snapshot.shared["selector"], snapshot.task("a").active.objects["memory"]):
            path = next(reader.folder.iterdir())
            path.write_bytes(b"\xff" * path.stat().st_size)
    problems = store.verify()
    assert [type(problem) for problem in problems] == [CorruptionError] * 2
    assert "shared-selector" in str(problems[0])
    assert "memory-a-v1" in str(problems[1])


def test_scratch_is_cleared_by_the_commit_that_no_longer_needs_it(store: Store) -> None:
    for digest in ("d1", "d2"):
        (store.scratch(digest) / "file").write_text("work")
    commit(store, learn("a", clear_scratch=("d1", "never-made")))
    assert [path.name for path in (store.path / "scratch").iterdir()] == ["d2"]
    assert (store.scratch("d2") / "file").read_text() == "work"
    with pytest.raises(ConfigError):
        store.scratch("../objects")


def test_forgotten_scratch_is_deleted_after_thirty_days(store: Store) -> None:
    old, young = store.scratch("old"), store.scratch("young")
    day = 24 * 3600
    os.utime(old, (0, time.time() - 31 * day))
    os.utime(young, (0, time.time() - 29 * day))
    with store.write("learn"):
        assert not old.exists()
        assert young.exists()


def test_bytes_on_disk_counts_every_file(store: Store) -> None:
    commit(store, learn("a"))
    files = [path for path in store.path.rglob("*") if path.is_file() and path.name != "reserve"]
    assert store.bytes_on_disk() == sum(path.stat().st_size for path in files)
    before = store.bytes_on_disk()
    commit(store, Change("x", shared={"big": Artifact(documents={"d": "x" * 100_000})}))
    assert store.bytes_on_disk() > before + 100_000


def test_leftovers_of_interrupted_writers_are_removed_by_the_next(store: Store) -> None:
    commit(store, learn("a"))
    objects = store.path / "objects"
    for name in (".module-x-v1-99", "module-x-v1-98"):
        (objects / name).mkdir()
        (objects / name / "adapter_config.json").write_text("{}")
    with store.write("learn"):
        assert folders(store) == folders_in_use(store)


def test_changes_made_together_are_seen_together_each_with_its_event(store: Store) -> None:
    commit(store, learn("a"))
    with store.write("learn") as writer:
        events = writer.commit_all([learn("b"), learn("a", detail={"n": 2}), learn("c", shared={"gram": module(1.0)})])
    assert [(event.task, event.version) for event in events] == [("b", 1), ("a", 2), ("c", 1)]
    assert store.events()[-3:] == events
    snapshot = store.snapshot()
    assert [task.name for task in snapshot.tasks] == ["a", "b", "c"]
    assert snapshot.generation == events[-1].id
    assert events[-1].bytes_stored == sum(reader.bytes for reader in snapshot.readers())
    for reader in snapshot.readers():
        reader.verify()


def test_changes_made_together_that_contradict_one_another_are_refused(store: Store) -> None:
    commit(store, learn("a"))
    before = describe_snapshot(store.snapshot())
    with store.write("learn") as writer:
        with pytest.raises(ConfigError, match="each task can be changed only once"):
            writer.commit_all([learn("b"), learn("b")])
        with pytest.raises(ConfigError, match="writes a slot twice"):
            writer.commit_all([learn(name, shared={"gram": module(1.0)}) for name in ("b", "c")])
        with pytest.raises(UnknownNameError, match="no task 'nope'"):
            writer.commit_all([learn("b"), Change("remove", "nope", remove=True)])
    assert describe_snapshot(store.snapshot()) == before

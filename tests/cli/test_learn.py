from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conpet import ConPET
from conpet.config.base import flat
from conpet.fusion import FUSIONS
from conpet.methods import METHODS
from conpet.modules.kinds import MODULE_KINDS
from conpet.replay import SCHEDULES
from conpet.replay.memory import Subset
from conpet.replay.memory_writer import stored_examples
from conpet.selectors import SELECTORS
from conpet.store import Store
from tests.helpers.cli import QUICK, STREAM, conpet, taught, write_rows, write_stream

NAMES = [task.name for task in STREAM]


def settings_of(workspace: Path) -> dict:
    return dict(Store.open(workspace).header().settings)


def test_init_takes_common_settings_as_options_and_all_others_as_yaml(tmp_path: Path) -> None:
    options = ["--rank", 4, "--learning-rate", "2e-3", "--seed", 7, "--set", "module.targets=[q_proj, v_proj]"]
    made = conpet("init", tmp_path / "ws", *QUICK, *options)
    assert made.code == 0
    expected = {
        "module.rank": 4,
        "training.learning_rate": 2e-3,
        "seed": 7,
        "training.epochs": 2,
        "fusion.calibration_examples": 8,
        "module.targets": ["q_proj", "v_proj"],
    }
    kept = flat(settings_of(tmp_path / "ws"))
    assert {key: kept[key] for key in expected} == expected
    assert "tiny-random" in made.out


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--set", "module.rnak=3"], 1, "unknown setting 'module.rnak' (did you mean 'module.rank'?); have: "),
        (["--rank", "0"], 1, "setting 'module.rank'"),
        (["--method", "nope"], 1, "no method 'nope'; have: a-gem, crl, der"),
        (["--method", "lad"], 1, "no method 'lad' (did you mean 'lda'?); have: a-gem"),
        (["--selector", "lienar"], 1, "(did you mean 'linear'?)"),
        (["--backbone", "nope"], 1, "no backbone 'nope'"),
        (["--module", "nope"], 1, "no module kind 'nope'; have: houlsby, ia3, lora, pfeiffer, prefix"),
        (["--module", "ia3", "--set", "module.rslora=true"], 1, "unknown setting 'module.rslora'; have: kind, targets"),
        (["--set", "module.rank"], 2, "KEY=VALUE"),
        (["--set", "module.rank="], 2, "has no value"),
        (["--rank", "4", "--set", "module.rank=5"], 2, "given twice"),
        (["--set", "module.targets=[q_proj"], 2, "not YAML"),
        (["--rank", "many"], 2, "--rank"),
    ],
)
def test_init_refuses_wrong_settings_and_makes_nothing(
    tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    made = conpet("init", tmp_path / "ws", "--backbone", "tiny-random", *options)
    assert (made.code, made.out) == (code, "")
    assert said in " ".join(made.err.split())
    assert "Traceback" not in made.err
    assert not (tmp_path / "ws").exists()


def test_init_names_every_selector_fusion_schedule_and_kind_in_its_help() -> None:
    told = conpet("init", "--help").out
    assert all(name in told for name in [*METHODS, *SELECTORS, *FUSIONS, *SCHEDULES, *MODULE_KINDS])


@pytest.mark.parametrize(
    ("options", "unused"),
    [
        (["--method", "lda", "--rank", "3"], "module.rank"),
        (["--method", "lda", "--rank", "3", "--module", "prefix", "--set", "backbone.warmup=first-task"], None),
        (["--method", "emr", "--selector", "learned", "--replay", "fixed"], "selector.name"),
        (["--method", "ewc", "--replay", "fixed", "--top-k", "2", "--rank", "3"], "replay.schedule, selector.top_k"),
        (["--method", "emr", "--rank", "3"], None),
        (["--rank", "3", "--selector", "learned"], None),
    ],
)
def test_init_says_which_settings_the_method_never_reads(
    tmp_path: Path, options: list[str], unused: str | None
) -> None:
    told = conpet("init", tmp_path / "ws", "--backbone", "tiny-random", *options).out.splitlines()
    method = options[1] if "--method" in options else "dynamic"
    said = [line for line in told if "does not use" in line]
    assert said == ([f"method {method} does not use: {unused}"] if unused else [])
    assert any("modules on" in line for line in told) == (method != "lda")


def test_a_memory_without_room_is_told(tmp_path: Path) -> None:
    workspace, folder = tmp_path / "ws", write_stream(tmp_path / "stream")
    conpet("init", workspace, *QUICK, "--method", "lda", "--set", "replay.memory_bytes=1")
    learned = conpet("learn", workspace, folder / NAMES[0])
    assert f"{NAMES[0]}: the replay memory (memory_bytes=1) has no room for any of its training examples" in learned.out
    assert "no room" in Store.open(workspace).snapshot().task(NAMES[0]).active.description["notes"][-1]
    assert "no room" not in conpet("learn", workspace, folder / NAMES[0]).out


def test_modules_that_cannot_share_a_pass_are_announced_once(tmp_path: Path) -> None:
    note = "prefix modules cannot share a forward pass"
    assert note in " ".join(conpet("init", tmp_path / "ws", *QUICK, "--module", "prefix").out.split())
    learned = conpet("learn", tmp_path / "ws", write_stream(tmp_path / "stream"))
    assert learned.code == 0
    assert note not in learned.out
    assert note not in conpet("init", tmp_path / "other", *QUICK, "--module", "ia3").out
    assert note not in conpet("init", tmp_path / "one", *QUICK, "--module", "prefix", "--method", "emr").out


def test_init_leaves_a_workspace_that_is_there_alone(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    made = conpet("init", workspace, *QUICK)
    assert made.code == 1
    assert "already exists" in made.err
    assert len(Store.open(workspace).snapshot().tasks) == 2


def test_learn_shows_the_matrix_growing_and_skips_what_is_known(tmp_path: Path) -> None:
    workspace, folder = tmp_path / "ws", write_stream(tmp_path / "stream")
    conpet("init", workspace, *QUICK)
    first = conpet("learn", workspace, folder)
    assert first.code == 0
    assert first.out.count("Accuracy by task") == 1  # on a terminal, it comes after each task
    assert [line for line in first.out.splitlines() if "learned 2 labels as version 1" in line]
    assert f"[2/2] {NAMES[1]}: training the module" in first.err
    assert "states from the cache" in first.out
    again = conpet("learn", workspace, folder)
    assert again.code == 0
    assert again.out.count("already learned from the same data") == 2
    assert len(Store.open(workspace).events()) == 3


def test_learn_says_which_test_sets_it_split_off(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    rows = [{"what": f"{word} number {n}", "which": f" new {word}"} for word in ("apple", "pear") for n in range(10)]
    file = write_rows(tmp_path / "fruit.jsonl", rows)
    columns = ("--text-column", "what", "--label-column", "which")
    learned = conpet("learn", workspace, file, "--name", "果物", "--no-evaluate", *columns)
    assert learned.code == 0
    assert "果物: labels of 20 rows were cleaned: blanks around them removed" in learned.out
    assert Store.open(workspace).snapshot().task("果物").active.labels == ("new apple", "new pear")
    assert "果物: no test set: " in learned.out
    assert "split off with seed 0" in learned.out
    assert "Accuracy by task" not in learned.out
    assert Store.open(workspace).snapshot().task("果物").active.number == 1


def test_learn_takes_all_rows_where_it_is_told_to(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    rows = [{"text": f"{word} number {n}", "label": f"new {word}"} for word in ("apple", "pear") for n in range(10)]
    file = write_rows(tmp_path / "fruit.jsonl", rows)
    learned = conpet("learn", workspace, file, "--all-rows", "--no-evaluate")
    assert learned.code == 0
    assert "split off" not in learned.out
    kept = stored_examples(Store.open(workspace).snapshot().task("fruit").active)
    assert [kept.count(subset) for subset in Subset] == [20, 0, 0]
    assert conpet("learn", workspace, file, "--all-rows", "--extend").code == 2


def test_learn_makes_a_new_version_of_a_changed_task(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    folder = write_stream(tmp_path / "stream") / NAMES[0]
    with (folder / "train.jsonl").open("a") as file:
        file.write(f'{{"text": "quite another example", "label": "{STREAM[0].labels[0]}"}}\n')
    learned = conpet("learn", workspace, folder)
    assert learned.code == 0
    assert "as version 2" in learned.out
    assert [version.number for version in Store.open(workspace).snapshot().task(NAMES[0]).versions] == [1, 2]


def test_learn_lists_every_wrong_row_and_learns_nothing(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    stream = write_stream(tmp_path / "stream")
    rows = [{"text": "", "label": "x"}] * 30 + [{"text": "hello", "label": STREAM[0].labels[0]}]
    write_rows(stream / "zz.jsonl", rows)
    before = Store.open(workspace).generation()
    refused = conpet("learn", workspace, stream)
    assert refused.code == 1
    assert "zz.jsonl: 30 rows (1-30): empty text\n" in refused.err
    assert f"row 31: label '{STREAM[0].labels[0]}' belongs to the earlier task '{NAMES[0]}'" in refused.err
    assert conpet("learn", workspace, stream, "--verbose").err == refused.err
    assert "Traceback" not in refused.err
    assert Store.open(workspace).generation() == before


def test_learn_names_a_missing_file_or_workspace(tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    assert (
        conpet("learn", taught(tmp_path), path).err == f"error: {path}: no such file or folder; nothing was learned\n"
    )
    missing = conpet("learn", tmp_path / "nowhere", tmp_path)
    assert missing.code == 1
    assert "no workspace at" in missing.err
    assert "conpet init" in missing.err


def test_interrupted_learn_says_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = tmp_path / "ws"
    conpet("init", workspace, *QUICK)
    learn = ConPET.learn_batch

    def interrupted(self: ConPET, tasks, **options):
        if tasks[0].name == NAMES[1]:
            raise KeyboardInterrupt
        return learn(self, tasks, **options)

    monkeypatch.setattr(ConPET, "learn_batch", interrupted)
    stopped = conpet("learn", workspace, write_stream(tmp_path / "stream"))
    assert stopped.code == 130
    assert "1 of 2 tasks are learned and stored" in stopped.err
    assert "Run the same command" in stopped.err


def test_learn_waits_for_another_writer_no_longer_than_asked(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    with Store.open(workspace).write("learn"):
        busy = conpet("learn", workspace, write_stream(tmp_path / "stream"), "--wait", "0.05")
    assert busy.code == 1
    assert "waiting: " in busy.err
    assert "is being changed by process" in busy.err


def test_busy_workspace_fails_at_once_where_no_wait_is_wanted(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    with Store.open(workspace).write("learn"):
        busy = conpet("learn", workspace, write_stream(tmp_path / "stream"), "--wait", "0")
    assert busy.code == 1
    assert "waiting: " not in busy.err


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    assert "Traceback" in conpet("--debug", "evaluate", tmp_path / "nowhere").err


def test_unexpected_errors_keep_their_traceback_and_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "events", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError) as raised:
        conpet("report", taught(tmp_path))
    assert "please report it" in raised.value.__notes__[0]


def test_wrong_usage_exits_with_2() -> None:
    assert conpet("bogus").code == 2
    assert conpet("learn").code == 2
    assert conpet("learn", "--bogus").code == 2


def test_the_version_is_told() -> None:
    assert conpet("--version").out.startswith("conpet 0.")


def test_a_reader_that_goes_away_is_no_error() -> None:
    # Nothing is written before the help is complete, so the pipe is closed in time.
    process = subprocess.Popen(
        [sys.executable, "-m", "conpet", "backbones", "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.wait(timeout=60)
    assert said == b""


def test_a_file_of_known_and_new_labels_is_learned_by_one_command(tmp_path: Path) -> None:
    workspace = taught(tmp_path)
    new = [{"text": f"a quite new {label} {at}", "label": label} for label in ("fee", "limit") for at in range(5)]
    known = [
        {"text": "another text", "label": STREAM[1].labels[0]},
        {"text": STREAM[0].train[0].text, "label": STREAM[0].train[0].label},
    ]
    file = write_rows(tmp_path / "inbox.jsonl", [*known, *new])
    refused = conpet("learn", workspace, file)
    assert refused.code == 1
    assert f"`--mixed` adds their examples to task '{NAMES[0]}' and 1 more" in refused.err
    assert "`--mixed` instead of `--extend`" in conpet("learn", workspace, file, "--extend").err
    done = conpet("learn", workspace, file, "--mixed")
    assert done.code == 0, done.err
    said = done.out.splitlines()
    assert said[:3] == [
        f"{NAMES[0]}: nothing new (1 example, already stored)",
        f"{NAMES[1]}: a new version, 1 more training example of 1 label",
        "inbox: a new task, 6 training examples (and 2 validation + 2 test) of 2 labels",
    ]
    assert any(line.startswith("inbox: learned 2 labels as version 1") for line in said)
    known_only = conpet("learn", workspace, write_rows(tmp_path / "known.jsonl", known))
    assert "`--extend` adds the examples to task" in known_only.err


def test_options_that_contradict_mixed_are_refused(tmp_path: Path) -> None:
    workspace, file = taught(tmp_path), write_rows(tmp_path / "one.jsonl", [{"text": "fee", "label": "fee"}])
    for options in (
        ["--mixed", "--extend"],
        ["--mixed", "--batch", 2],
        ["--mixed", "--consolidate", "doubling"],
        ["--into", NAMES[0]],
        ["--mixed", "--into", NAMES[0], "--name", "x"],
    ):
        assert conpet("learn", workspace, file, *options).code == 2
    assert "only one new label ('fee')" in conpet("learn", workspace, file, "--mixed").err
    assert "no task 'nowhere'" in conpet("learn", workspace, file, "--mixed", "--into", "nowhere").err
    done = conpet("learn", workspace, file, "--mixed", "--into", NAMES[0], "--no-evaluate")
    assert f"{NAMES[0]}: a new version, 1 more training example of 1 label, 1 of them new" in done.out
    assert f"{NAMES[0]}: learned 3 labels as version 2" in done.out


def test_a_large_fall_of_a_tasks_test_accuracy_is_said(tmp_path: Path) -> None:
    workspace, task = taught(tmp_path), STREAM[0]
    names = dict(zip(task.labels, reversed(task.labels), strict=True))
    folder = tmp_path / "swapped" / task.name
    folder.mkdir(parents=True)
    for subset in ("train", "validation", "test"):
        examples = getattr(task, subset)
        labels = [one.label if subset == "test" else names[one.label] for one in examples]
        pairs = zip(examples, labels, strict=True)
        write_rows(folder / f"{subset}.jsonl", ({"text": one.text, "label": label} for one, label in pairs))
    result = conpet("learn", workspace, folder.parent)
    said = " ".join(result.err.split())
    assert f"warning: the test accuracy of task {task.name!r} fell from" in said
    assert "held-out examples were not compared" in said

"""`conpet bench table` and `compare`: what stands in tables, and what is refused."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from conpet.bench.groups import Group, grouped
from conpet.bench.measures import measures
from conpet.bench.results import Result
from conpet.bench.tables import as_csv, build_table, latex, markdown
from conpet.errors import ConfigError
from tests.cli.test_import_time import heavy_after
from tests.helpers.bench import experiment_file
from tests.helpers.bench_results import made, orders, write
from tests.helpers.cli import conpet

FIVE = [0.90, 0.92, 0.94, 0.96, 0.98]
"""Mean 0.94, deviation sqrt(0.001), half of the interval 2.776445 sqrt(0.001 / 5) = 0.039265."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with results of three learners in five orders."""
    lower = [value - 0.1 - 0.01 * (place % 2) for place, value in enumerate(FIVE)]
    results = orders("dynamic", FIVE) + orders("emr*", lower) + orders("joint", [0.99] * 5)
    return write(tmp_path / "mine", results)


def only(results: list[Result], *more: list[Result]) -> Group:
    sources = {"": results} if not more else {f"folder {n}": some for n, some in enumerate([results, *more])}
    (group,) = grouped(sources)
    return group


def lines_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_a_cell_is_the_mean_in_points_with_half_its_interval(folder: Path) -> None:
    ran = conpet("bench", "table", folder, "--metric", "whole_accuracy")
    assert ran.code == 0, ran.err
    head, _, *rows = lines_of(ran.out)
    assert head == ["learner", "whole accuracy (%)"]
    assert rows[0] == ["dynamic", "94.0 ± 3.9"]
    assert rows[2] == ["joint", "99.0 ± 0.0"]
    assert "over 5 orders" in ran.out
    assert "minilm-l6; 3 tasks (by given); 6 labels, 100 test examples; examples per label: 20 train, 5 " in ran.out
    assert "5 validation, all test; training: epochs 5" in ran.out
    assert "Intervals cover the variation over orders and seeds, not over the choice of examples." in ran.out


def test_costs_are_shown_in_their_units() -> None:
    group = only([made("lda", cpu=[1.0, 2.0, 4.5])])
    names = ["cpu_seconds", "cpu_seconds_per_task", "seconds_per_task", "seconds_per_prediction", "bytes_stored", "lda"]
    head, _, row = lines_of(markdown([build_table(group, measures(names, group.results))]))
    assert head[1:5] == ["CPU time (s)", "CPU time per task (s)", "time per task (s)", "CPU time per prediction (ms)"]
    assert head[5:] == ["storage (MB)", "lda as reference (%)"]
    assert row == ["lda", "7.50", "2.50", "5.00", "4.00", "2.50", "80.0"]


def test_tasks_whose_cost_was_not_measured_do_not_count() -> None:
    result = made("joint", cpu=[1.0, 2.0, 9.0])
    result = result.model_copy(update={"costs": [None, None, result.costs[2]]})
    group = only([result])
    assert build_table(group, measures(["cpu_seconds_per_task"], group.results)).rows[0].cells[0].mean == 9.0  # type: ignore[union-attr]


def test_what_is_not_asked_for_is_what_was_measured(folder: Path) -> None:
    head = lines_of(conpet("bench", "table", folder).out)[0]
    assert head == ["learner", "whole accuracy (%)", "CPU time per task (s)", "storage (MB)"]


def test_rows_stand_as_asked_for(folder: Path) -> None:
    ran = conpet("bench", "table", folder, "--learner", "joint", "--learner", "dynamic")
    assert [row[0] for row in lines_of(ran.out)[2:]] == ["joint", "dynamic"]


def test_the_experiment_says_the_order_and_the_columns(tmp_path: Path) -> None:
    file = experiment_file(tmp_path, metrics=["forgetting"])
    results = [made(name, metrics={"forgetting": 0.025}) for name in ("lda", "emr*", "another")]
    ran = conpet("bench", "table", write(tmp_path / "results", results), "--experiment", file)
    assert lines_of(ran.out)[0] == ["learner", "forgetting (%)"]
    assert lines_of(ran.out)[2:] == [["emr\\*", "2.5"], ["lda", "2.5"], ["another", "2.5"]]


def test_variants_follow_each_other_in_natural_order() -> None:
    table = build_table(only([made("dynamic", variant=f"rank {rank}") for rank in (16, 2, 1)]), ())
    assert [row.names for row in table.rows] == [("dynamic", "rank 1"), ("dynamic", "rank 2"), ("dynamic", "rank 16")]


def test_the_number_of_orders_is_shown_where_it_differs() -> None:
    group = only([*orders("dynamic", FIVE), *orders("emr*", FIVE[:3])])
    head, _, *rows = lines_of(markdown([build_table(group, measures(["whole_accuracy"], group.results))]))
    assert head[1] == "orders"
    assert [row[1] for row in rows] == ["5", "3"]


def test_the_number_of_orders_with_a_value_is_shown_where_some_have_none() -> None:
    results = [made("a", order=order, metrics={"forgetting": 0.1 if order else None}) for order in range(4)]
    group = only(results)
    (row,) = lines_of(markdown([build_table(group, measures(["forgetting"], group.results))]))[2:]
    assert row == ["a", "10.0 ± 0.0 (n = 3)"]


def test_seeds_are_averaged_within_an_order() -> None:
    accuracies = {(0, 0): 0.8, (0, 1): 0.9, (1, 0): 0.85, (1, 1): 0.95}
    group = only([made("a", value, order=order, seed=seed) for (order, seed), value in accuracies.items()])
    (row,) = build_table(group, measures(["whole_accuracy"], group.results)).rows
    assert row.cells[0] is not None
    assert (row.n, row.cells[0].n, row.cells[0].mean) == (2, 2, pytest.approx(0.875))
    assert "2 orders, each the mean of 2 seeds" in markdown([build_table(group, ())])


def test_every_protocol_has_a_table_of_its_own(tmp_path: Path) -> None:
    results = [made("a", variant=f"{tasks} tasks", protocol={"stream": {"tasks": tasks}}) for tasks in (5, 10)]
    ran = conpet("bench", "table", write(tmp_path, [*results, made("a", protocol={"data": "banking77"})]))
    titles = [line for line in ran.out.splitlines() if line.startswith("**")]
    assert titles == ["**banking77 (main)**", "**clinc150, 10 tasks (main)**", "**clinc150, 5 tasks (main)**"]


def test_variants_of_different_protocols_are_joined_on_request_and_that_is_said(tmp_path: Path) -> None:
    results = [made("a", variant=f"{tasks} tasks", protocol={"stream": {"tasks": tasks}}) for tasks in (5, 10)]
    ran = conpet("bench", "table", write(tmp_path, results), "--join-variants", "--metric", "whole_accuracy")
    assert lines_of(ran.out)[2:] == [["a", "5 tasks", "90.0"], ["a", "10 tasks", "90.0"]]
    assert "Protocol: minilm-l6; 6 labels, 100 test examples; examples per label: 20 train, 5 val" in ran.out
    assert "5 validation, all test; training: epochs 5; modules: rank 8." in ran.out
    assert "The protocol differs between variants: stream." in ran.out
    bold = conpet("bench", "table", tmp_path, "--join-variants", "--format", "latex").out
    assert "textbf" not in bold


def test_sizes_are_those_of_all_rows_and_one_order_has_no_interval_to_explain() -> None:
    group = only([made("a"), made("b", test_examples=99)])
    text = markdown([build_table(group, ())])
    assert "test examples" not in text
    assert "Intervals" not in text


def test_csv_holds_every_number_in_full(folder: Path) -> None:
    ran = conpet("bench", "table", folder, "--format", "csv", "--metric", "whole_accuracy", "--metric", "bytes_stored")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert (rows[0]["learner"], rows[0]["metric"], rows[0]["n"]) == ("dynamic", "whole_accuracy", "5")
    assert float(rows[0]["mean"]) == pytest.approx(0.94, abs=1e-15)
    assert float(rows[0]["deviation"]) == pytest.approx(0.001**0.5, rel=1e-12)
    assert float(rows[0]["interval_95"]) == pytest.approx(0.0392650, abs=1e-6)
    assert float(rows[1]["mean"]) == 2_500_000


def test_csv_leaves_the_interval_of_one_order_empty() -> None:
    group = only([made("a")])
    (row,) = csv.DictReader(io.StringIO(as_csv([build_table(group, measures(["whole_accuracy"], group.results))])))
    assert (row["mean"], row["deviation"], row["interval_95"], row["n"]) == ("0.9", "", "", "1")


def test_latex_escapes_names_and_sets_the_best_in_bold() -> None:
    results = [
        made("50% & more_", 0.9, metrics={"forgetting": 0.02}),
        made("b", 0.8, metrics={"forgetting": -0.01}),
        made("c", 0.9001, metrics={"forgetting": 0.03}),
    ]
    group = only(results)
    text = latex([build_table(group, measures(["whole_accuracy", "forgetting"], group.results))])
    assert r"50\% \& more\_ & \textbf{90.0} & 2.0 \\" in text  # as good as c, as far as is shown
    assert r"b & 80.0 & \textbf{$-$1.0} \\" in text
    assert r"c & \textbf{90.0} & 3.0 \\" in text
    assert r"\toprule" in text
    assert r"learner & whole accuracy (\%) & forgetting (\%) \\" in text


def test_a_name_is_no_markdown() -> None:
    assert "emr\\* \\| x\\_" in markdown([build_table(only([made("emr* | x_")]), ())])


def test_a_table_is_written_to_a_file(folder: Path, tmp_path: Path) -> None:
    none = conpet("bench", "table", folder, "-o", tmp_path / "none" / "table.md")
    assert (none.code, none.out) == (1, "")
    assert f"there is no folder {tmp_path / 'none'}; create it, or name another place" in none.err
    ran = conpet("bench", "table", folder, "-o", tmp_path / "table.md")
    assert ran.out.strip() == str(tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == conpet("bench", "table", folder).out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--metric", "acc"], "no metric acc in the results; available: whole_accuracy, forgetting"),
        (["--learner", "crl"], "no results of learner crl; available: dynamic, emr*, joint"),
        (["--variant", "rank 3"], "no results of variant rank 3; available: none"),
        (["--data", "ace"], "no results of data set ace; available: clinc150"),
        (["--format", "html"], "no format 'html'; available: markdown, csv, latex"),
    ],
)
def test_what_is_unknown_is_refused_with_what_there_is(folder: Path, options: list[str], told: str) -> None:
    ran = conpet("bench", "table", folder, *options)
    assert ran.code == 1
    assert told in ran.err


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    assert "no results in" in conpet("bench", "table", tmp_path).err
    assert "no results in" in conpet("bench", "table", tmp_path / "absent").err


def test_a_file_that_is_no_result_is_named(folder: Path) -> None:
    (folder / "other.json").write_text("{}")
    ran = conpet("bench", "table", folder)
    assert ran.code == 1
    assert "other.json is not a result of conpet bench" in ran.err


def test_results_of_an_older_protocol_between_newer_ones_are_refused(tmp_path: Path) -> None:
    stale = made("emr*", protocol={"budget": {"training": {"epochs": 3}}})
    ran = conpet("bench", "table", write(tmp_path, [*orders("dynamic", FIVE), stale]))
    assert ran.code == 1
    assert (
        "budget.training.epochs: 5 in (main, clinc150, dynamic, order 0, seed 0), 3 in (main, clinc150, emr*,"
        in ran.err
    )


def test_a_run_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", [made("lda")])
    write(tmp_path / "b", [made("lda")])
    told = conpet("bench", "table", tmp_path).err
    assert "(main, clinc150, lda, order 0, seed 0) occurs twice" in told
    assert all(str(tmp_path / name / "clinc150" / "lda-o0-s0.json") in told for name in ("a", "b"))


def test_folders_are_compared_row_by_row(folder: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "theirs", orders("dynamic", [value - 0.01 for value in FIVE]))
    ran = conpet("bench", "compare", folder, other, "--learner", "dynamic", "--metric", "whole_accuracy")
    assert ran.code == 0, ran.err
    rows = lines_of(ran.out)
    assert rows[0] == ["learner", "source", "whole accuracy (%)"]
    assert rows[2] == ["dynamic", "mine", "94.0 ± 3.9"]
    assert rows[3] == ["dynamic", "theirs", "93.0 ± 3.9"]
    assert rows[6][:3] == ["dynamic [theirs]", "−1.0", "5"]
    assert f"Sources: mine is {folder}; theirs is {other}." in ran.out.replace("\\_", "_")


def test_folders_of_the_same_name_are_told_apart_by_those_above(tmp_path: Path) -> None:
    folders = [write(tmp_path / who / "main", orders("dynamic", FIVE)) for who in ("mine", "theirs")]
    ran = conpet("bench", "compare", *folders, "--metric", "whole_accuracy")
    assert [row[1] for row in lines_of(ran.out)[2:4]] == ["mine/main", "theirs/main"]


def test_folders_of_different_protocols_are_refused_field_by_field(folder: Path, tmp_path: Path) -> None:
    changes = {"backbone": "smollm2-135m", "examples": {"train": None, "validation": 5, "test": None}}
    other = write(tmp_path / "theirs", orders("dynamic", FIVE, protocol=changes))
    ran = conpet("bench", "compare", folder, other)
    assert ran.code == 1
    assert f"backbone: minilm-l6 in {folder}, smollm2-135m in {other}" in ran.err
    assert f"examples.train: 20 in {folder}, all in {other}" in ran.err
    assert "digest" not in ran.err


def test_folders_with_other_orders_are_refused_unless_the_common_ones_are_asked_for(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine", orders("dynamic", FIVE))
    theirs = write(tmp_path / "theirs", orders("dynamic", FIVE[:2]))
    ran = conpet("bench", "compare", mine, theirs)
    assert ran.code == 1
    assert "dynamic [theirs]: o0-s0, o1-s0" in ran.err
    ran = conpet("bench", "compare", mine, theirs, "--common-orders", "--metric", "whole_accuracy")
    assert [row[2].split()[0] for row in lines_of(ran.out)[2:4]] == ["91.0", "91.0"]
    assert "Only orders and seeds common to all rows." in ran.out


def test_folders_with_nothing_in_common_are_refused(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine", [made("lda")])
    theirs = write(tmp_path / "theirs", [made("lda", protocol={"data": "banking77"})])
    assert "no data set and variant in common" in conpet("bench", "compare", mine, theirs).err
    assert "the same folder is named twice" in conpet("bench", "compare", mine, mine).err


def test_costs_of_different_machines_are_told_as_such() -> None:
    fast, slow = [made("lda")], [made("lda", machine={"processor": "A slow one", "load_before": 2.0})]
    group = only(fast, slow)
    cost = build_table(group, measures(["cpu_seconds"], group.results))
    assert "different machines" in markdown([cost])
    assert "A slow one, 2 cores, 1 thread a run (folder 1)" in markdown([cost])
    accuracy = build_table(group, measures(["whole_accuracy"], group.results))
    assert "different machines" not in markdown([accuracy])
    threads = only(fast, [made("lda", made_by={**fast[0].made_by, "threads": 2})])
    text = markdown([build_table(threads, measures(["cpu_seconds"], threads.results))])
    assert "different machines or with different numbers of threads" in text
    assert "1 thread a run (folder 0); A fast one, 2 cores, 2 threads a run (folder 1)" in text
    alike = only([made("lda")], [made("lda", machine={"load_before": 2.0})])
    assert "different machines" not in markdown([build_table(alike, measures(["cpu_seconds"], alike.results))])


def test_a_learner_set_up_in_another_way_is_told_as_such() -> None:
    group = only(
        [made("dynamic")],
        [made("dynamic", settings={"method": {"name": "dynamic"}, "module": {"rank": 16}, "seed": 0})],
    )
    assert "Settings of dynamic differ: module.rank 8 in folder 0, 16 in folder 1." in markdown(
        [build_table(group, ())]
    )


def test_learners_are_tested_against_the_one_that_is_named(folder: Path) -> None:
    ran = conpet("bench", "compare", folder, "--against", "dynamic", "--metric", "whole_accuracy")
    assert ran.code == 0, ran.err
    head, _, emr, joint = lines_of(ran.out)[5:]
    assert head == ["learner", "difference", "orders", "p (t)", "Holm", "p (signs)", "Holm"]
    # emr*: five differences of -10 or -11 points, all negative: the floor of the sign flips, doubled by Holm
    assert emr[:3] == ["emr\\*", "−10.4 ± 0.7", "5"]
    assert emr[3:] == ["< 0.001", "< 0.001", "0.062", "0.125"]
    assert joint[1] == "+5.0 ± 3.9"
    assert "cannot be below 0.0625 with 5 orders" in ran.out
    assert "is the best of these same runs" not in ran.out


def test_learners_are_tested_against_the_best_and_that_is_said(folder: Path) -> None:
    ran = conpet("bench", "compare", folder)
    assert "**clinc150 (main): whole accuracy (%) against joint**" in ran.out
    assert "joint is the best of these same runs" in ran.out
    wrong = conpet("bench", "compare", folder, "--against", "crl")
    assert "no learner crl; available: dynamic, emr*, joint" in wrong.err
    assert wrong.out == ""


def test_two_orders_give_differences_and_no_tests(tmp_path: Path) -> None:
    results = [*orders("a", [0.90, 0.92]), *orders("b", [0.89, 0.91]), *orders("c", [0.80, 0.90])]
    ran = conpet("bench", "compare", write(tmp_path, results), "--metric", "whole_accuracy")
    means, tests = lines_of(ran.out)[2:5], lines_of(ran.out)[7:]
    assert [row[1] for row in means] == ["91.0", "90.0", "85.0"]
    assert tests == [["b", "−1.0", "2", *"––––"], ["c", "−6.0", "2", *"––––"]]
    assert "Mean over 2 orders; fewer than 3 orders give no useful interval." in ran.out
    assert "Fewer than 3 orders give no useful interval and no test." in ran.out


def test_differences_without_spread_are_told_as_such(tmp_path: Path) -> None:
    results = [*orders("a", FIVE), *orders("b", [value - 0.01 for value in FIVE])]
    ran = conpet("bench", "compare", write(tmp_path, results), "--metric", "whole_accuracy")
    assert lines_of(ran.out)[-1] == ["b", "−1.0", "5", "–", "–", "0.062", "0.062"]
    assert "Differences that are equal in all orders have no spread" in ran.out


def test_in_one_folder_differences_are_over_what_both_have_and_that_is_said(tmp_path: Path) -> None:
    results = [*orders("a", FIVE), *orders("b", [0.80, 0.81, 0.83])]
    ran = conpet("bench", "compare", write(tmp_path, results), "--metric", "whole_accuracy")
    assert lines_of(ran.out)[-1][:3] == ["b", "−10.7 ± 1.4", "3"]  # of 0.92 in the same three, not of 0.94 in five
    assert "Not all learners have the same orders and seeds" in ran.out
    even = conpet("bench", "compare", tmp_path, "--metric", "whole_accuracy", "--common-orders")
    assert "Not all learners have the same orders and seeds" not in even.out


def test_a_metric_that_was_asked_for_and_not_measured_is_named(folder: Path) -> None:
    ran = conpet("bench", "table", folder, "--metric", "whole_accuracy", "--metric", "forgetting")
    assert lines_of(ran.out)[0] == ["learner", "whole accuracy (%)"]
    assert "Not measured: forgetting." in ran.out
    assert "Not measured" not in conpet("bench", "table", folder, "--metric", "whole_accuracy").out


def test_only_the_variants_that_are_named_are_shown(tmp_path: Path) -> None:
    folder = write(tmp_path, [made("a", variant=f"rank {rank}") for rank in (1, 2, 4)])
    options = ["--variant", "rank 4", "--variant", "rank 1", "--metric", "whole_accuracy"]
    for verb in ("table", "compare"):
        rows = lines_of(conpet("bench", verb, folder, *options).out)
        assert [row[1] for row in rows[2:4]] == ["rank 4", "rank 1"]


def lora(*, rank: int, **backbone: Any) -> dict[str, Any]:
    return {"backbone": backbone, "module": {"kind": "lora", "rank": rank}}


def test_the_modules_of_all_rows_are_named_where_they_are_alike() -> None:
    rows = [made("a", settings=lora(rank=rank, frozen_layers=4)) for rank in (8, 8)]
    told = "training: epochs 5; modules: lora, rank 8, 4 frozen layers."
    assert told in markdown([build_table(only(rows[:1], rows[1:]), ())])
    mixed = [made("a"), made("b", settings=lora(rank=16, frozen_layers=4))]
    assert "rank" not in markdown([build_table(only(mixed), ())])


def test_the_modules_are_those_of_the_rows_that_train_some() -> None:
    untrained = {"trainable_parameters": 0}
    dynamic = made("dynamic", settings=lora(rank=8, frozen_layers=1))
    lda = made("lda", settings=lora(rank=8, frozen_layers=5), totals=untrained)
    warm = made("lda + warm-up", settings=lora(rank=2, frozen_layers=5, warmup="first-task"), totals=untrained)
    assert "epochs 5." in markdown([build_table(only([lda]), ())])
    assert "epochs 5; modules: lora, rank 8, 1 frozen layer." in markdown([build_table(only([dynamic, lda]), ())])
    assert "epochs 5; modules: rank 2." in markdown([build_table(only([lda, warm]), ())])


def test_tables_are_made_without_torch(folder: Path) -> None:
    called = f"from conpet.cli import main; assert main(['bench', 'compare', {str(folder)!r}]) == 0"
    assert heavy_after(called) == set()


def test_sources_of_several_experiments_are_refused() -> None:
    with pytest.raises(ConfigError, match="contains several experiments; give the folder of one: a, b"):
        grouped({"x": [made("lda", experiment="a"), made("lda", experiment="b")], "y": [made("lda")]})

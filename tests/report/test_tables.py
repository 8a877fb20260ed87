import pytest
from rich.console import Console

from conpet.report.data import Score
from conpet.report.tables import confusion_table, cost_table, final_table, labels_table, matrix_table, tasks_table
from tests.helpers.reports import LLAMA_7B, event, label_results, report

TEN = ["banking", "credit cards", "kitchen and dining", "home", "auto and commute",
       "travel", "utility", "work", "small talk", "[red]日本語[/red]の問い合わせ"]  # fmt: skip


def printed(table, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_matrix_grows_by_a_row_and_a_column_per_task():
    lines = printed(matrix_table(report(TEN).events))
    assert lines[1].split() == ["after", "learning", *(str(number) for number in range(1, 11)), "whole"]
    assert [line.count("80.0") for line in lines[2:]] == list(range(2, 12))


def test_of_many_tasks_the_matrix_shows_the_latest():
    lines = printed(matrix_table(report([f"task {number}" for number in range(1, 31)]).events))
    assert "the latest" in lines[0]
    assert len(lines) == 14
    assert lines[-1].startswith("30 task 30")


def test_logistic_regression_stands_beside_whole_accuracy_if_it_was_measured():
    first, second = report(["a", "b"]).events
    beside = second.model_copy(update={"references": {"logistic": 0.7, "lda": 0.9}})
    lines = printed(matrix_table([first, beside]))
    assert lines[2].split()[-2:] == ["whole", "reg."]
    assert lines[3].split()[-1] == "80.0"
    assert lines[4].split()[-2:] == ["80.0", "70.0"]


def test_the_matrix_marks_what_fell():
    first, second = report(["a", "b"]).events
    fell = second.model_copy(update={"scores": {"a": Score(7, 10), "b": Score(8, 10)}})
    styles = [cell.style for cell in matrix_table([first, fell]).columns[1].cells]
    assert styles == ["", "yellow"]


def test_the_result_stands_beside_its_references_best_first():
    text = "\n".join(printed(final_table(event(["a", "b"], 2), LLAMA_7B)))
    assert "80.0%" in text
    assert "1.2 points" in text
    assert "−4.6 points" in text
    assert "2,097,152  (3,213× fewer than the backbone)" in text
    assert text.index("ridge") < text.index("nearest mean")
    assert "77.7%  (+2.3)" in text


def test_the_result_without_tests_has_no_numbers_for_accuracy():
    lines = printed(final_table(event(["a"], 1, tested=False), LLAMA_7B))
    assert not any("accuracy" in line for line in lines)


def test_the_result_gives_the_examples_behind_it():
    measured = event(["a", "b"], 2).model_copy(update={"forgetting_examples": 10})
    text = "\n".join(printed(final_table(measured, LLAMA_7B)))
    assert "80.0%  (58.4–91.9, 20 examples)" in text
    assert "1.2 points  (on 10 examples)" in text


def test_labels_and_confusions_are_limited_to_the_worst():
    results = label_results([f"a long name of label number {number}" for number in range(12)])
    lines = printed(labels_table(results, 3))
    assert lines[0] == "Labels, %: the worst 3 of 12"
    assert lines[3].split()[-4:] == ["–", "80.0", "85.0", "10"]
    assert [line.split()[:2] for line in lines[-2:]] == [["macro", "average"], ["weighted", "average"]]
    confused = printed(confusion_table(results, 1))
    assert all(len(line) <= 80 for line in confused)
    assert "9 of 10 row 3: a" in confused[-1]
    assert confused[-1].startswith("a long name of labe… a long name of labe… ")


def test_costs_are_given_by_stage_and_in_all():
    lines = printed(cost_table(report(["a", "b"]).events))
    assert lines[2].split() == ["a", "2.5", "4.0", "6.5", "1.23k", "12"]
    assert lines[-1].split() == ["all", "5.0", "8.0", "13.0", "2.47k", "24"]


def test_tasks_show_their_names_as_they_are():
    data = report(TEN)
    text = "\n".join(printed(tasks_table(data.tasks, data.events[-1]), width=100))
    assert "[red]日本語[/red]" in text
    assert "80.0%" in text


@pytest.mark.parametrize("count", [0, 1, 10, 40])
def test_tables_fit_a_terminal_of_eighty_columns(count):
    data = report([f"{TEN[number % 10]} {number}" for number in range(count)])
    beside = [event.model_copy(update={"references": {"logistic": 1.0}}) for event in data.events]
    last = data.events[-1] if data.events else None
    shown = [matrix_table(beside), cost_table(data.events), tasks_table(data.tasks, last)]
    if data.label_results:
        shown.append(labels_table(data.label_results))
    for table in shown:
        lines = printed(table)
        assert len(lines) < count + 8, "no cell may wrap"
        assert not any("…" in line[30:] for line in lines), "no number may be cut"

"""`conpet bench plot`: who is drawn, where, and what is written beside it."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.path import Path as LinePath

from conpet.bench.drawing import MOST_SHOWN
from conpet.bench.groups import Group, grouped
from conpet.bench.label_placement import Named, label_ends
from conpet.bench.plots import draw
from conpet.bench.results import Result
from conpet.errors import ConfigError, UnknownNameError
from tests.helpers.bench_results import made, orders, write
from tests.helpers.cli import conpet

COURSES = {"dynamic": [0.98, 0.95, 0.93], "emr*": [0.97, 0.88, 0.80]}


def group(results: list[Result]) -> Group:
    (found,) = grouped({"": results})
    return found


@pytest.fixture
def results() -> list[Result]:
    """Return two learners in three orders that differ by a point, and joint, measured in the end alone."""
    learned = [
        made(name, [value + 0.01 * (order - 1) for value in course], order=order, cpu=[1.0 + order, 2.0, 3.0])
        for name, course in COURSES.items()
        for order in range(3)
    ]
    return learned + orders("joint", [0.95, 0.95, 0.95], cpu=20.0)


def words(path: Path) -> list[str]:
    """Return the texts of an SVG file."""
    found = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")  # noqa: S314 - made here
    return ["".join(element.itertext()) for element in found]


def lines(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    """Return name to places and values of what the first axes name."""
    named = [one for one in figure.axes[0].lines if not str(one.get_label()).startswith("_")]
    return {str(one.get_label()): (list(one.get_xdata()), list(one.get_ydata())) for one in named}


def test_accuracy_is_drawn_after_every_task_with_its_band(results: list[Result]) -> None:
    figure = draw("accuracy", group(results))
    drawn = lines(figure)
    assert drawn["dynamic"] == ([1, 2, 3], pytest.approx([98, 95, 93]))
    assert drawn["emr*"] == ([1, 2, 3], pytest.approx([97, 88, 80]))
    assert drawn["joint"] == ([3], pytest.approx([95]))
    # three orders a point apart: deviation 1, half of the interval 4.302653 / sqrt(3)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((93 - 2.484, 98 + 2.484), abs=0.01)
    low, high = figure.axes[0].get_ylim()
    assert 70 < low < 80
    assert 98 < high <= 101


def test_the_drawing_names_learners_units_and_conditions(results: list[Result], tmp_path: Path) -> None:
    target = tmp_path / "one.svg"
    ran = conpet("bench", "plot", write(tmp_path / "results", results), "-o", target)
    assert ran.code == 0, ran.err
    assert ran.out.strip() == str(target)
    written = words(target)
    assert {"dynamic", "emr*", "joint", "tasks learned", "whole accuracy (%)"} <= set(written)
    assert "clinc150 (main): whole accuracy after each task" in written
    assert "Means over 3 orders; bands: 95% t-intervals of the mean. minilm-l6; 3 tasks" in " ".join(written)


def test_the_same_results_make_the_same_file(results: list[Result], tmp_path: Path) -> None:
    folder = write(tmp_path / "results", results)
    for kind in ("accuracy", "cost", "growth"):
        for name in ("a", "b"):
            assert conpet("bench", "plot", folder, "--kind", kind, "-o", tmp_path / f"{name}.svg").code == 0
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_name_is_no_mathematics(tmp_path: Path) -> None:
    folder = write(tmp_path / "results", [made("$x^2$ & <b>", [0.5, 0.6, 0.7])])
    assert conpet("bench", "plot", folder, "-o", tmp_path / "a.svg").code == 0
    assert "$x^2$ & <b>" in words(tmp_path / "a.svg")


def test_png_is_written_by_its_ending_and_others_are_refused(results: list[Result], tmp_path: Path) -> None:
    folder = write(tmp_path / "results", results)
    assert conpet("bench", "plot", folder, "-o", tmp_path / "a.png").code == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "ending in .svg or .png" in conpet("bench", "plot", folder, "-o", tmp_path / "a.jpg").err


def test_every_data_set_has_its_own_file(results: list[Result], tmp_path: Path) -> None:
    folder = write(tmp_path / "results", [*results, made("lda", protocol={"data": "banking77"})])
    assert conpet("bench", "plot", folder, "-o", tmp_path / "all").code == 0
    assert {path.name for path in (tmp_path / "all").iterdir()} == {
        f"{name}-accuracy.svg" for name in ("banking77", "clinc150")
    }
    assert conpet("bench", "plot", folder, "-o", tmp_path / "x.png").code == 0
    assert {path.name for path in tmp_path.glob("*.png")} == {"x-banking77.png", "x-clinc150.png"}
    assert conpet("bench", "plot", folder, "--data", "clinc150", "-o", tmp_path / "x.svg").code == 0
    assert {path.name for path in tmp_path.glob("*.svg")} == {"x.svg"}


def test_a_file_is_named_after_its_data_set_and_only_if_need_be_after_its_experiment(tmp_path: Path) -> None:
    folder = write(tmp_path / "results", [made("lda", protocol={"data": "cook.csv"})])
    (tmp_path / "plots.v1").mkdir()
    assert conpet("bench", "plot", folder, "--kind", "cost", "-o", tmp_path / "plots.v1").code == 0
    assert [path.name for path in (tmp_path / "plots.v1").iterdir()] == ["cook_csv-cost.svg"]
    write(folder / "other", [made("lda", experiment="other")])
    assert conpet("bench", "plot", folder, "-o", tmp_path / "both").code == 0
    assert {path.name for path in (tmp_path / "both").iterdir()} == {
        "main-cook_csv-accuracy.svg",
        "other-clinc150-accuracy.svg",
    }


def test_only_the_variants_that_are_named_are_drawn(tmp_path: Path) -> None:
    folder = write(tmp_path / "results", [made("lda", variant=name) for name in ("rank 1", "rank 2", "rank 4")])
    options = ["--variant", "rank 4", "--variant", "rank 1", "-o", tmp_path / "x.svg"]
    assert conpet("bench", "plot", folder, *options).code == 0
    assert {"lda (rank 1)", "lda (rank 4)"} <= set(words(tmp_path / "x.svg"))
    assert "lda (rank 2)" not in words(tmp_path / "x.svg")


def test_two_orders_have_no_bands_and_the_axis_fits_the_lines() -> None:
    wild = [made(name, [0.98, 0.9, 0.83 + 0.1 * order], order=order) for name in "ab" for order in range(2)]
    figure = draw("accuracy", group(wild))
    assert not figure.axes[0].collections
    low, high = figure.axes[0].get_ylim()
    assert 85 < low < 88  # means from 88 to 98
    assert 98 < high < 100
    assert "intervals" not in " ".join(one.get_text() for one in figure.texts)


def test_a_wide_band_leaves_the_lines_most_of_the_axis() -> None:
    wild = [made("a", [0.9, 0.8 + 0.1 * (order - 1)], order=order, cpu=[1.0, 1.0]) for order in range(3)]
    figure = draw("accuracy", group(wild))
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() < 60  # 10 points apart: 80 less 24.8
    low, high = figure.axes[0].get_ylim()
    assert 70 < low < high < 101


def test_a_learner_looks_the_same_whoever_else_is_drawn(results: list[Result]) -> None:
    def looks(*learners: str, data: str = "clinc150") -> dict[str, tuple[str, str]]:
        both = [*results, made("emr*", protocol={"data": "banking77"}), made("joint", protocol={"data": "banking77"})]
        (found,) = grouped({"": both}, learners=learners, data=[data], order=["joint", "der++", "emr*", "dynamic"])
        drawn = draw("cost", found).axes[0].lines
        return {str(one.get_label()): (str(one.get_color()), str(one.get_marker())) for one in drawn}

    everyone = looks()
    assert len({everyone[name] for name in ("joint", "emr*", "dynamic")}) == 3
    assert looks("dynamic", "emr*")["emr*"] == looks(data="banking77")["emr*"] == everyone["emr*"]
    assert looks("dynamic")["dynamic"] == everyone["dynamic"]


def test_variants_of_a_learner_look_different() -> None:
    figure = draw("accuracy", group([made(name, variant=f"rank {n}") for name in "ab" for n in range(4)]))
    drawn = [one for one in figure.axes[0].lines if not str(one.get_label()).startswith("_")]
    assert len({(one.get_color(), one.get_linestyle(), one.get_marker()) for one in drawn}) == 8


def test_accuracy_stands_against_cost_on_a_logarithmic_axis(results: list[Result]) -> None:
    axes = draw("cost", group(results)).axes[0]
    drawn = lines(draw("cost", group(results)))
    assert drawn["joint"] == ([20.0], pytest.approx([95]))
    assert drawn["dynamic"] == ([pytest.approx(7 / 3)], pytest.approx([93]))  # (1 or 2 or 3, 2, 3) seconds
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "CPU time per task (s)"
    low, high = axes.get_xlim()
    assert low < 7 / 3 < 20 < high


def test_a_mark_at_100_percent_is_drawn_whole() -> None:
    found = [*orders("emr*", [1.0] * 3), *orders("joint", [0.9] * 3)]
    marks = [line for line in draw("cost", group(found)).axes[0].lines if line.get_marker() in ("o", "s", "^", "D")]
    assert marks
    assert not any(mark.get_clip_on() for mark in marks)


def test_the_cost_is_any_number_of_the_results(results: list[Result]) -> None:
    figure = draw("cost", group(results), cost="bytes_stored")
    assert lines(figure)["emr*"][0] == [2.5]
    assert figure.axes[0].get_xlabel() == "storage (MB)"
    with pytest.raises(UnknownNameError, match="no metric joules"):
        draw("cost", group(results), cost="joules")


def test_a_cost_of_nothing_is_drawn_on_a_plain_axis() -> None:
    axes = draw("cost", group([made("lda", cpu=0.0), made("emr*")])).axes[0]
    assert axes.get_xscale() == "linear"
    assert axes.get_xlim()[0] <= 0


def test_names_in_the_drawing_of_costs_do_not_cover_each_other() -> None:
    crowd = [made(f"learner {number}", 0.9 + 0.001 * number, cpu=2.0 + 0.05 * number) for number in range(8)]
    figure = draw("cost", group(crowd))
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    assert len(boxes) == 8
    assert not any(box.overlaps(other) for box in boxes for other in boxes if other is not box)


def test_no_leader_runs_through_a_name() -> None:
    crowd = [made(f"learner {number}", 0.9 + 0.01 * (number % 3), cpu=2.0 + 0.01 * number) for number in range(12)]
    crowd += [made("low", 0.8, cpu=2.5), made("high", 0.99, cpu=1.7)]
    axes = draw("cost", group(crowd), everyone=True).axes[0]
    names = [text for text in axes.texts if text.get_text()]
    points = {name.xy: name for name in names}
    leaders = [text for text in axes.texts if not text.get_text()]
    assert leaders  # the crowd is too dense for names beside the points
    pixels = axes.figure.dpi / 72
    for leader in leaders:
        start = axes.transData.transform(leader.xy)
        line = LinePath([start, start + pixels * np.array(leader.get_position())])
        others = [name for name in names if name is not points[leader.xy]]
        assert not any(line.intersects_bbox(name.get_window_extent(), filled=False) for name in others)


def test_a_logarithmic_axis_has_three_ticks_however_short() -> None:
    for cheap, dear in ((2.0, 2.1), (0.3, 9.0), (1.0, 10.0), (0.001, 5000.0), (0.9, 1.1)):
        axes = draw("cost", group([made("a", cpu=cheap), made("b", cpu=dear)])).axes[0]
        low, high = axes.get_xlim()
        assert 3 <= len([tick for tick in axes.get_xticks() if low <= tick <= high]) <= 9, (cheap, dear)


def test_one_order_has_no_intervals_in_the_caption() -> None:
    for kind in ("accuracy", "cost"):
        told = " ".join(one.get_text() for one in draw(kind, group([made("a", [0.9, 0.8, 0.7])])).texts)
        assert "1 order. minilm-l6" in told
        assert "interval" not in told


def test_names_at_the_ends_of_lines_stand_apart_in_the_order_of_the_lines() -> None:
    axes = Figure().add_axes((0, 0, 1, 1))
    axes.set_ylim(0, 100)
    label_ends(axes, [Named(1.0, height, f"at {height}", "#000000") for height in (50.0, 50.5, 99.9, 50.2, 99.8)])
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    ordered = [heights[f"at {height}"] for height in (50.0, 50.2, 50.5, 99.8, 99.9)]
    assert all(above - below > 4.4 for below, above in pairwise(ordered))
    assert ordered[1] == pytest.approx((50 + 50.2 + 50.5) / 3)
    assert ordered[-1] < 100


def test_cost_as_the_stream_grows_has_its_slope_with_an_interval(tmp_path: Path) -> None:
    growing = [made("emr*", cpu=[1.0 + 0.5 * number + shift for number in range(20)], order=order)
               for order, shift in enumerate((0.0, 0.2, 0.4))]  # fmt: skip
    steady = made("dynamic", cpu=[2.0, 2.1, 1.9, 2.0])
    folder = write(tmp_path, [*growing, steady])
    assert conpet("bench", "plot", folder, "--kind", "growth", "-o", tmp_path / "g.svg").code == 0
    written = words(tmp_path / "g.svg")
    assert "+0.500 ± 0.000 s per task" in written  # half a second a task in every order
    assert "+1.00 ± 0.00 MB per task" in written
    assert {"CPU time of a task (s)", "on disk afterwards (MB)", "CPU time of a prediction (ms)"} <= set(written)
    # x 1..4: slope -0.02, residuals -.03, .09, -.09, .03; 4.302653 sqrt(.018 / 2 / 5)
    assert "−0.02 ± 0.18 s per task" in written


def test_growth_is_drawn_from_the_first_task_to_the_top_of_all_lines(results: list[Result]) -> None:
    retrained = made("joint", 0.95, order=0)
    costs = [None, None, retrained.costs[2].model_copy(update={"cpu_seconds": 500.0})]  # type: ignore[union-attr]
    some = [one for one in results if one.learner != "joint"]
    axes = draw("growth", group([*some, retrained.model_copy(update={"costs": costs})])).axes[0]
    assert 3.0 < axes.get_ylim()[1] < 4.0  # tasks of lines took 3 s at most, joint's 500 s
    assert 0 < axes.get_xlim()[0] < 1
    assert list(axes.get_xticks()) == [1, 2, 3]
    assert "joint\n500 s at task 3 alone" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_lines_on_each_other_are_drawn_in_turns() -> None:
    alike = [made(name, cpu=[1.0, 2.0, 3.0, 4.0]) for name in "abc"]
    axes = draw("growth", group([*alike, made("d", cpu=[4.0, 3.0, 2.0, 1.0])])).axes[0]
    drawn = {one.get_color(): one for one in axes.lines if list(one.get_xdata()) == [1, 4]}
    assert len(drawn) == 4
    seen = {colour: one._dash_pattern for colour, one in drawn.items()}
    turns = [pattern for pattern in seen.values() if pattern[1] is not None]
    assert len(turns) == 3
    shown = [{round((-offset + at) % sum(dashes), 6) for at in range(2)} for offset, dashes in turns]
    assert not any(one & other for one in shown for other in shown if one is not other)


def test_what_was_measured_once_alone_does_not_grow() -> None:
    found = made("emr*")
    costs = [cost and cost.model_copy(update={"predict_seconds": None}) for cost in found.costs[:2]]
    figure = draw("growth", group([found.model_copy(update={"costs": [*costs, found.costs[2]]})]))
    assert [axes.get_ylabel() for axes in figure.axes] == ["CPU time of a task (s)", "on disk afterwards (MB)"]


def test_the_most_accurate_are_drawn_of_many_unless_learners_are_named() -> None:
    many = [made(f"learner {number:02}", 0.5 + 0.01 * number) for number in range(MOST_SHOWN + 3)]
    figure = draw("accuracy", group(many))
    assert sorted(lines(figure)) == [f"learner {number:02}" for number in range(3, MOST_SHOWN + 3)]
    assert any("The 12 most accurate of 15 learners" in re.sub(r"\s+", " ", one.get_text()) for one in figure.texts)
    assert len(lines(draw("accuracy", group(many), everyone=True))) == MOST_SHOWN + 3


def test_a_learner_can_be_drawn_however_accurate() -> None:
    many = [made(f"learner {number:02}", 0.5 + 0.01 * number) for number in range(MOST_SHOWN + 3)]
    figure = draw("accuracy", group(many), always=["learner 01", "learner 14"])
    assert sorted(lines(figure)) == ["learner 01", *(f"learner {number:02}" for number in range(4, MOST_SHOWN + 3))]
    told = re.sub(r"\s+", " ", " ".join(one.get_text() for one in figure.texts))
    assert "The 11 most accurate of 15 learners, and learner 01;" in told
    with pytest.raises(UnknownNameError, match="no learner crl; available: learner 00, "):
        draw("accuracy", group(many), always=["crl"])


def test_the_settings_of_the_process_are_left_as_they_were(results: list[Result], tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    assert conpet("bench", "plot", write(tmp_path / "r", results), "-o", tmp_path / "a.svg").code == 0
    assert dict(mpl.rcParams) == before


def test_what_cannot_be_drawn_is_said(results: list[Result]) -> None:
    with pytest.raises(ConfigError, match="no plot of kind 'pie'; available: accuracy, cost, growth"):
        draw("pie", group(results))
    bare = [one.model_copy(update={"matrix": [None] * 3, "costs": [None] * 3}) for one in results]
    with pytest.raises(ConfigError, match="no run was evaluated after any task"):
        draw("accuracy", group(bare))
    with pytest.raises(ConfigError, match="no run measured both whole accuracy and CPU time per task"):
        draw("cost", group(bare))
    with pytest.raises(ConfigError, match="no run measured the cost of several tasks"):
        draw("growth", group(bare))

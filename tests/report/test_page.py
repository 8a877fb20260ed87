import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pytest

from conpet.report.data import Verb
from conpet.report.page import render_page
from tests.helpers.reports import report

VOID = {"meta", "link", "br", "img", "hr", "input"}
HOSTILE = "<script>alert('1')</script>\" onload=x & $\\frac{"


class Page(HTMLParser):
    """Reads a page: its text, its attributes, and whether every element is closed where it should be."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def test_the_page_stands_alone():
    page = Page(render_page(report(["banking", "travel"])))
    for link in page.values("src") + page.values("href") + page.values("xlink:href"):
        assert link.startswith(("#", "data:image/png;base64,")), link
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    html = render_page(report(["banking", "travel"]))
    assert html.startswith("<!DOCTYPE html>")
    assert "http" not in html
    assert "@import" not in html


def test_the_page_has_labels_confusion_with_examples_and_calibration():
    page = Page(render_page(report(["banking", HOSTILE])))
    for shown in (
        "Macro average 45.0% 80.0% 85.0%",
        "9 wrong answers, 1 pair of labels.",
        "9 of 10 row 3: a text on banking 4 more",
        "and 4 more in the JSON",
        "Expected calibration error 3.4 points (2 bins of equal width); scores are 2.1 points too low on average",
    ):
        assert shown in page.text
    assert "script" not in page.tags
    assert "Accuracy of the answers by their score" in page.values("aria-label")
    assert "Calibration" not in Page(render_page(report(["banking"], tested=False))).text


def test_the_page_gives_the_numbers():
    text = Page(render_page(report(["banking", "travel"]))).text
    for shown in (
        "80.0% of test examples get the correct one of 4 labels in 2 tasks",
        "ridge, gets 77.7%: tuning adds 2.3 points",
        "20 test examples, 95% interval 58.4–91.9",  # Wilson's interval of 16 in 20, worked out by hand
        "+2.3",
        "1.2",
        "−4.6",
        "90.0%",
        "85.0%",
        "61.0%",
        "3,213×",
        "6,738,415,616",
        "2,097,152",
        "2,468",
        "13 s",
        "8.40 MB",
        "layers 1–24 are never adapted",
        "module.rank",
    ):
        assert shown in text, shown


def test_after_a_consolidation_the_page_says_what_the_references_read():
    data = report(["banking", "travel"])
    backbone = data.workspace.backbone.model_copy(update={"consolidated": ("banking", "travel")})
    last = data.events[-1].model_copy(update={"verb": Verb.CONSOLIDATE, "task": "", "version": None})
    tuned = data.model_copy(
        update={
            "workspace": data.workspace.model_copy(update={"backbone": backbone}),
            "events": (*data.events, last),
        }
    )
    text = Page(render_page(tuned)).text
    assert "The best reference on the tuned backbone, ridge, gets 77.7%: the module adds 2.3 points" in text


def test_small_matrices_print_their_values():
    drawing = (
        render_page(report(["banking", "travel"])).split('aria-label="Accuracy on every task')[1].split("</svg>")[0]
    )
    assert re.findall(r">(\d+\.\d)<", drawing) == ["80.0"] * 3


def test_a_lost_comparison_is_said_as_plainly():
    data = report(["banking"])
    lost = data.events[0].model_copy(update={"references": {"ridge": 0.83}})
    text = Page(render_page(data.model_copy(update={"events": (lost,)}))).text
    assert "tuning is 3.0 points worse" in text
    assert "−3.0" in text


def test_hostile_names_are_only_text():
    data = report([HOSTILE, "b"])
    page = Page(render_page(data.model_copy(update={"workspace": data.workspace.model_copy(update={"name": HOSTILE})})))
    assert "script" not in page.tags
    assert not page.values("onload")
    assert HOSTILE in page.text


def test_names_of_any_script_are_drawn_as_text_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = Page(render_page(report(["日本語の問い合わせ（返品と交換）", "émoji 🙂", "x\ny"])))
    assert page.words.count("日本語の問い合わせ…") >= 2
    assert "日本語の問い合わせ（返品と交換）" in page.words
    assert "émoji 🙂" in page.text


def test_ids_are_unique():
    ids = Page(render_page(report(["a", "b", "c"]))).values("id")
    assert len(ids) == len(set(ids))


def test_references_to_ids_are_met():
    html = render_page(report(["a", "b", "c"]))
    ids = set(Page(html).values("id"))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', html))
    assert used <= ids


@pytest.mark.parametrize("count", [0, 1, 16, 61])
def test_any_number_of_tasks(count):
    text = Page(render_page(report([f"task {number}" for number in range(count)]))).text
    assert ("Nothing has been learned yet." in text) == (count == 0)


def test_a_thousand_tasks_stay_a_small_file():
    html = render_page(report([f"task {number}" for number in range(1000)], labels=15))
    assert len(html.encode()) < 3_000_000
    text = Page(html).text
    assert "15,000 labels in 1,000 tasks" in text
    assert "Each cell is the mean of 3 × 3" in text
    assert "and 5 more" in text


def test_without_test_examples_no_accuracy_is_claimed():
    page = Page(render_page(report(["a", "b"], tested=False)))
    assert "There are no test examples" in page.text
    assert "matrix" not in page.values("id")
    assert "cost" in page.values("id")


def test_without_references():
    text = Page(render_page(report(["a", "b"], references=False))).text
    assert "80.0% of test examples get the correct one of 4 labels in 2 tasks." in text
    assert "Reference:" not in text


def test_removed_and_rolled_back_tasks_show_in_the_history():
    data = report(["a", "b"])
    removed = data.events[-1].model_copy(update={"verb": Verb.REMOVE, "task": "a", "scores": {}})
    back = data.events[-1].model_copy(update={"verb": Verb.ROLLBACK, "version": 3})
    page = Page(render_page(data.model_copy(update={"tasks": data.tasks[1:], "events": (*data.events, back, removed)})))
    assert {"− a", "b ↩ v3"} <= set(page.words)
    assert {"rollback", "remove"} <= set(page.words)


def test_the_same_data_gives_the_same_page_whatever_the_process_has_set():
    data = report(["a", "b"])
    plain = render_page(data)
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        assert render_page(data) == plain
        assert mpl.rcParams["font.size"] == 30


def test_rendering_leaves_pyplot_alone():
    code = (
        "import sys; from tests.helpers.reports import report; from conpet.report.page import render_page;"
        "render_page(report(['a', 'b'])); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0

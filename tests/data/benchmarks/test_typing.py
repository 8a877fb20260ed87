"""Few-NERD, OntoNotes and BBN from small files in exactly their formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conpet.data import Example
from conpet.data.benchmarks import read_data
from conpet.data.labelled import stream_of
from conpet.errors import DataError


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def found(examples: tuple[Example, ...]) -> list[tuple[str, str | None]]:
    """Return the mentions' words and labels."""
    spans = [(one, one.mention) for one in examples]
    return [(" ".join(one.tokens[span.start : span.end]), one.label) for one, span in spans if span is not None]


def reasons(name: str, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_data(name, [folder])
    return str(caught.value)


FEWNERD = """\
Ann\tperson-actor
Lee\tperson-actor
visited\tO
the\tO
Rhine\tlocation-bodiesofwater
near\tO
Köln\tlocation-GPE

Acme\torganization-company
hired\tO
Roe\tperson-soldier
"""


def write_fewnerd(folder: Path, train: str = FEWNERD) -> None:
    put(folder / "fewnerd/supervised/train.txt", train)
    for subset in ("dev", "test"):
        put(folder / f"fewnerd/supervised/{subset}.txt", f"Bo\tperson-actor\nof\tO\n{subset}\tlocation-GPE\n\n")


class TestFewNerd:
    def test_a_run_of_one_type_is_a_mention(self, tmp_path: Path) -> None:
        write_fewnerd(tmp_path)
        data = read_data("fewnerd", [tmp_path])
        assert found(data.train) == [
            ("Ann Lee", "person-actor"),
            ("Rhine", "location-bodiesofwater"),
            ("Köln", "location-GPE"),
            ("Acme", "organization-company"),
            ("Roe", "person-soldier"),
        ]
        assert data.train[1].tokens == ("Ann", "Lee", "visited", "the", "Rhine", "near", "Köln")
        assert found(data.test) == [("Bo", "person-actor"), ("test", "location-GPE")]

    def test_types_are_grouped_by_the_paper_and_by_coarse_type(self, tmp_path: Path) -> None:
        write_fewnerd(tmp_path)
        data = read_data("fewnerd", [tmp_path])
        assert list(data.groupings) == ["paper", "groups"]
        assert data.grouping("paper")["task-01"] == ("organization-company",)
        assert data.grouping("groups") == {
            "location": ("location-GPE", "location-bodiesofwater"),
            "organization": ("organization-company",),
            "person": ("person-actor", "person-soldier"),
        }

    @pytest.mark.parametrize(
        ("train", "said"),
        [
            (
                FEWNERD + "\nBo B-person\n",
                "row 13: in the sentence that begins here: expected 'token<TAB>type', found 'Bo",
            ),
            (
                FEWNERD + "\nBo\tB-person-actor\n",
                "row 13: in the sentence that begins here: unknown type 'B-person-actor'",
            ),
            ("\n\n", "is empty"),
            ("all\tO\n", "no usable training example"),
        ],
    )
    def test_says_what_is_wrong(self, tmp_path: Path, train: str, said: str) -> None:
        write_fewnerd(tmp_path, train)
        assert said in reasons("fewnerd", tmp_path)

    def test_the_few_shot_folders_are_not_taken_for_it(self, tmp_path: Path) -> None:
        put(tmp_path / "fewnerd/inter/train.txt", FEWNERD)
        assert "lacks supervised/train.txt, supervised/dev.txt, supervised/test.txt" in reasons("fewnerd", tmp_path)


TOKENS = ["The", "mayor", "of", "New", "York", "-LRB-", "Ann", "Lee", "-RRB-", "spoke"]
LABELS = {"New York": ["/location", "/location/city"], "Ann Lee": ["/person", "/person/unheard_of"]}
"""The deepest label of the second is in no task of the paper."""
SPANS = {"New York": (3, 5), "Ann Lee": (6, 8)}


def mentions_form() -> str:
    mentions = [{"start": SPANS[one][0], "end": SPANS[one][1], "labels": LABELS[one]} for one in SPANS]
    return json.dumps({"senid": 1, "fileid": "wsj", "tokens": TOKENS, "mentions": mentions}) + "\n"


def columns_form(*features: str) -> str:
    rows = [[*map(str, SPANS[one]), " ".join(TOKENS), " ".join(LABELS[one]), *features] for one in SPANS]
    return "".join("\t".join(row) + "\n" for row in rows)


def one_label_form() -> str:
    labels = {"New York": "/location/city", "Ann Lee": "/person"}
    rows = [[*map(str, SPANS[one]), " ".join(TOKENS), labels[one]] for one in SPANS]
    return "".join("\t".join(row) + "\n" for row in rows)


def context_form() -> str:
    rows: list[dict[str, Any]] = [
        {
            "annot_id": f"a{start}",
            "mention_span": " ".join(TOKENS[start:end]),
            "left_context_token": TOKENS[:start],
            "right_context_token": TOKENS[end:],
            "y_str": LABELS[one],
        }
        for one, (start, end) in SPANS.items()
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


FORMS = {
    "mentions": (mentions_form(), "train.json", "dev.json", "test.json"),
    "columns": (columns_form("HEAD|york SHAPE|Aa"), "train.tsv", "dev.tsv", "test.tsv"),
    "columns without features": (columns_form(""), "train.txt", "valid.txt", "test.txt"),
    "one label": (one_label_form(), "train.txt", "dev.txt", "test.txt"),
    "context": (context_form(), "augmented_train.json", "g_dev.json", "g_test.json"),
}


def write_ontonotes(folder: Path, text: str, *files: str) -> None:
    for file in files or ("train.txt", "dev.txt", "test.txt"):
        put(folder / "ontonotes" / file, text)


class TestEntityTyping:
    @pytest.mark.parametrize("form", FORMS)
    def test_every_form_gives_the_same(self, tmp_path: Path, form: str) -> None:
        write_ontonotes(tmp_path, *FORMS[form])
        data = read_data("ontonotes", [tmp_path])
        for subset in (data.train, data.validation, data.test):
            assert found(subset) == [("New York", "/location/city"), ("Ann Lee", "/person")]
            assert subset[0].tokens == ("The", "mayor", "of", "New", "York", "(", "Ann", "Lee", ")", "spoke")
        assert sorted(label for labels in data.grouping("paper").values() for label in labels) == [
            "/location/city",
            "/person",
        ]

    def test_mentions_outside_the_papers_tasks_are_left_out_and_counted(self, tmp_path: Path) -> None:
        other = columns_form().replace("/location/city", "/x").replace("/location ", "/y ")
        write_ontonotes(tmp_path, other)
        data = read_data("ontonotes", [tmp_path])
        assert found(data.train) == [("Ann Lee", "/person")]
        assert "left out: 3 mentions none of whose labels is in the paper's tasks" in data.notes

    def test_of_equally_deep_labels_the_first_counts(self, tmp_path: Path) -> None:
        write_ontonotes(tmp_path, "0\t1\tOslo spoke\t/organization /location/city /organization/government\n")
        assert read_data("ontonotes", [tmp_path]).labels == ("/location/city",)

    def test_the_misspelt_label_counts_as_it_is_spelt(self, tmp_path: Path) -> None:
        write_ontonotes(tmp_path, "0\t1\tCapri is small\t/location/geograpy/island\n")
        assert read_data("ontonotes", [tmp_path]).labels == ("/location/geograpy/island",)

    def test_bbn_without_a_dev_file_has_one_split_off(self, tmp_path: Path) -> None:
        rows = "".join(f"0\t1\tOslo {at}\t/GPE/CITY\n0\t1\tPeru {at}\t/GPE/COUNTRY\n" for at in range(20))
        put(tmp_path / "bbn/train.txt", rows)
        put(tmp_path / "bbn/test.txt", "0\t1\tRome fell\t/GPE/CITY\n")
        data = read_data("bbn", [tmp_path])
        assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 1)
        assert any("no dev file: 4 training examples" in note for note in data.notes)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("0\t9\tCapri is small\t/person\n", "row 1: mention span 0:9 is outside the 3 tokens"),
            ("2\t2\tCapri is small\t/person\n", "row 1: mention span 2:2 is empty (its end is exclusive)"),
            ("Capri\tLOC\n", "row 1: expected a JSON object with tokens and mentions, one with mention_span"),
            ('{"text": "a", "label": "b"}\n', "found an object with text, label"),
            (mentions_form()[:60], "row 1: not valid JSON"),
            (mentions_form().replace('"end": 5', '"end": "5"'), "row 1: end must be a whole number, not '5'"),
            (context_form().replace("right_context_token", "right"), "row 1: missing field 'right_context_token'"),
            ("", "is empty"),
        ],
    )
    def test_says_what_is_wrong(self, tmp_path: Path, text: str, said: str) -> None:
        write_ontonotes(tmp_path, text)
        assert said in reasons("ontonotes", tmp_path)

    def test_two_training_files_are_one_too_many(self, tmp_path: Path) -> None:
        write_ontonotes(tmp_path, one_label_form(), "train.txt", "train.json", "test.txt")
        assert "several train files (train.json, train.txt); keep one" in reasons("ontonotes", tmp_path)

    def test_a_file_of_a_foreign_kind_is_not_taken_for_data(self, tmp_path: Path) -> None:
        write_ontonotes(tmp_path, one_label_form(), "train.txt", "test.docx")
        assert "contains no test file" in reasons("ontonotes", tmp_path)


def test_training_inputs_are_not_tested_on(tmp_path: Path) -> None:
    write_ontonotes(tmp_path, one_label_form())
    data = read_data("ontonotes", [tmp_path])
    (task,) = stream_of(data, {"both": data.labels})
    assert (len(task.train), task.validation, task.test) == (2, (), ())

"""FewRel, TACRED and ACE 2005 from small files in exactly their formats."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conpet.data import Example, Span
from conpet.data.benchmarks import read_data
from conpet.data.labelled import LabelledData, stream_of
from conpet.errors import DataError


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def marked(example: Example) -> tuple[str, str]:
    assert example.head is not None
    assert example.tail is not None
    head, tail = (" ".join(example.tokens[span.start : span.end]) for span in (example.head, example.tail))
    return head, tail


def reasons(name: str, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_data(name, [folder])
    assert caught.value.problems
    return str(caught.value)


def fewrel_instance(number: int, relation: str) -> dict[str, Any]:
    tokens = ["Sentence", str(number), "of", relation, "names", "New", "York", "and", "Rome", "."]
    return {"tokens": tokens, "h": ["new york", "Q60", [[5, 6]]], "t": ["rome", "Q220", [[8], [3]]]}


def write_fewrel(folder: Path) -> dict[str, list[Any]]:
    train = {one: [fewrel_instance(at, one) for at in range(20)] for one in ("P102", "P105")}
    train["P105"][:6] = train["P102"][:6]  # sentences with two relations
    put(folder / "fewrel" / "train_wiki.json", train)
    held = {"P118": [fewrel_instance(at, "P118") for at in range(20)]}
    put(folder / "fewrel" / "val_wiki.json", held)
    return train | held


class TestFewRel:
    def test_spans_labels_and_tasks(self, tmp_path: Path) -> None:
        write_fewrel(tmp_path)
        data = read_data("fewrel", [tmp_path])
        assert {marked(one) for one in data.train} == {("New York", "Rome")}
        assert data.labels == ("P102", "P105", "P118")
        assert data.grouping() == {"task-01": ("P102", "P105"), "task-02": ("P118",)}
        assert any("P1001" in note for note in data.notes), "labels of the paper that are not in the data are named"

    def test_every_relation_is_divided_80_10_10_and_no_sentence_is_in_two_subsets(self, tmp_path: Path) -> None:
        write_fewrel(tmp_path)
        data = read_data("fewrel", [tmp_path])
        for subset, share in (("train", 16), ("validation", 2), ("test", 2)):
            counts = Counter(one.label for one in getattr(data, subset))
            assert counts["P102"] == share
            assert counts["P118"] == share
        sentences = [{one.tokens for one in part} for part in (data.train, data.validation, data.test)]
        assert sum(map(len, sentences)) == len(set.union(*sentences)) == 54

    def test_the_subsets_do_not_depend_on_the_order_in_the_file(self, tmp_path: Path) -> None:
        content = write_fewrel(tmp_path / "a")
        put(tmp_path / "b/fewrel/train_wiki.json", {one: rows[::-1] for one, rows in reversed(content.items())})
        put(tmp_path / "b/fewrel/val_wiki.json", {})
        ours, theirs = (read_data("fewrel", [tmp_path / one]) for one in "ab")
        assert {one.tokens for one in ours.test} == {one.tokens for one in theirs.test}

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ([{"tokens": []}], "expected an object"),
            (
                {"P102": [{"tokens": ["a"], "h": ["a", "Q1", [[0]]]}]},
                "P102, instance 1: missing field 't'; fields: tok",
            ),
            ({"P102": [{"tokens": ["a"], "h": ["a", "Q1", []], "t": ["a", "Q1", [[0]]]}]}, "h must be [name, id, [["),
            ({"P102": [{"tokens": ["a"], "h": ["a", "Q1", [[0]]], "t": ["a", "Q1", [[7]]]}]}, "outside the 1 tokens"),
            ({"per:title": []}, "expected Wikidata relations such as P931, found 'per:title'"),
            ('{"P102": [{"tokens": ["a", ', "is the file complete?"),
            (" ", "is empty"),
        ],
    )
    def test_says_what_is_wrong(self, tmp_path: Path, content: Any, said: str) -> None:
        put(tmp_path / "fewrel/train_wiki.json", content)
        put(tmp_path / "fewrel/val_wiki.json", {})
        assert said in reasons("fewrel", tmp_path)
        assert "train_wiki.json" in reasons("fewrel", tmp_path)


def tacred_row(relation: str, number: int = 0, **other: Any) -> dict[str, Any]:
    tokens = ["In", f"{1990 + number}", "Ann", "Lee", "-LRB-", "a", "Kenyan", "-RRB-", "left", "."]
    row = {"id": f"e{number}", "docid": "APW", "relation": relation, "token": tokens}
    spans = {"subj_start": 2, "subj_end": 3, "obj_start": 6, "obj_end": 6}
    rest = {"subj_type": "PERSON", "obj_type": "NATIONALITY"}
    columns = {name: ["X"] * len(tokens) for name in ("stanford_pos", "stanford_ner", "stanford_deprel")}
    return {**row, **spans, **rest, **columns, "stanford_head": [0] * len(tokens), **other}


def write_tacred(folder: Path, train: Any) -> None:
    put(folder / "tacred/train.json", train)
    put(folder / "tacred/dev.json", [tacred_row("per:origin", 50)])
    put(folder / "tacred/test.json", [tacred_row("org:founded", 51), tacred_row("no_relation", 52)])


class TestTacred:
    def test_spans_are_inclusive_and_names_the_papers(self, tmp_path: Path) -> None:
        names = ["per:origin", "org:number_of_employees/members", "org:founded", "no_relation", "per:identity"]
        write_tacred(tmp_path, [tacred_row(name, at) for at, name in enumerate(names)])
        data = read_data("tacred", [tmp_path])
        assert {marked(one) for one in data.train} == {("Ann Lee", "Kenyan")}
        assert data.train[0].tokens[4:8] == ("(", "a", "Kenyan", ")")
        assert [one.label for one in data.validation + data.test] == ["person origin", "organization founded"]
        first = ("organization founded", "person origin", "organization number of employees members")
        assert data.grouping("paper") == {"task-01": first}
        assert "left out: 2 rows labelled no_relation" in data.notes
        assert "labels in none of the paper's tasks: person identity" in data.notes
        assert data.train[0].id == "e0"

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (tacred_row("per:origin", obj_end=10), "row 2: obj_start 6 and obj_end 10 are outside the 10 tokens"),
            (
                tacred_row("per:origin", subj_end=1),
                "row 2: subj_start 2 and subj_end 1: the end (inclusive) is before",
            ),
            (tacred_row("per:origin", subj_start="2"), "row 2: subj_start must be a whole number, not '2'"),
            (tacred_row("P102"), "row 2: unknown relation 'P102'; expected per:..., org:..."),
            ({"relation": "per:origin", "tokens": []}, "row 2: missing field 'token'; fields: relation, tokens"),
            ("text", "row 2: expected a JSON object, found 'text'"),
        ],
    )
    def test_says_which_row_is_wrong(self, tmp_path: Path, row: Any, said: str) -> None:
        write_tacred(tmp_path, [tacred_row("per:origin"), row])
        assert said in reasons("tacred", tmp_path)

    def test_all_wrong_rows_are_told_at_once(self, tmp_path: Path) -> None:
        write_tacred(tmp_path, [tacred_row(name) for name in ("spouse", "per:origin", "title")])
        assert "2 problems" in reasons("tacred", tmp_path)
        assert "'spouse'" in reasons("tacred", tmp_path)
        assert "'title'" in reasons("tacred", tmp_path)

    def test_a_folder_without_its_files_says_what_belongs_there(self, tmp_path: Path) -> None:
        put(tmp_path / "tacred/train.json", [])
        put(tmp_path / "tacred/readme.txt", "x")
        said = reasons("tacred", tmp_path)
        assert (
            "lacks dev.json, test.json; expected train.json, dev.json, test.json; found readme.txt, train.json" in said
        )

    def test_a_missing_data_set_says_where_to_get_it(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"LDC2018T24; put these files into .*tacred: train\.json, dev\.json, test\.json"
        ):
            read_data("tacred", [tmp_path])

    def test_an_input_with_two_labels_keeps_its_first(self, tmp_path: Path) -> None:
        write_tacred(tmp_path, [tacred_row("per:origin"), tacred_row("per:title"), tacred_row("org:founded", 1)])
        data = read_data("tacred", [tmp_path])
        assert [one.label for one in data.train] == ["person origin", "organization founded"]
        assert any("1 inputs that occur earlier in the same subset" in note for note in data.notes)


SGM = """<DOC>
<DOCID> X1 </DOCID>
<BODY>
<TEXT>
Dr. Ann Lee of AT&amp;T met Kofi Roe in
Accra. "Roe's wife," she said, "lives in the U.S. capital."

New paragraph about nothing.
</TEXT>
</BODY>
</DOC>
"""
PLAIN = "\n X1 \n\n\n" + SGM.split("<TEXT>\n")[1].split("</TEXT>")[0]
"""The text as its offsets count it: without tags, entities as they are written, from 0."""


def mention(name: str, words: str, after: str = "") -> str:
    start = PLAIN.index(words, PLAIN.index(after))
    end = start + len(words) - 1  # inclusive
    seq = f'<charseq START="{start}" END="{end}">{words}</charseq>'
    return f'<entity_mention ID="{name}" TYPE="NAM"><extent>{seq}</extent><head>{seq}</head></entity_mention>'


def relation(kind: str, subtype: str, one: str, two: str) -> str:
    arguments = f'<relation_mention_argument REFID="{one}" ROLE="Arg-1"/>'
    arguments += f'<relation_mention_argument REFID="{two}" ROLE="Arg-2"/>'
    arguments += '<relation_mention_argument REFID="T1" ROLE="Time-Within"/>'
    named = f'SUBTYPE="{subtype}"' if subtype else ""
    return (
        f'<relation ID="R" TYPE="{kind}" {named}><relation_mention ID="R-1">{arguments}</relation_mention></relation>'
    )


MENTIONS = (
    mention("E1", "Ann Lee")
    + mention("E2", "AT&amp;T")
    + mention("E3", "Kofi Roe")
    + mention("E4", "Accra")
    + mention("E5", "Roe", after="Accra")
    + mention("E6", "wife")
    + mention("E7", "U.S")
)


def apf(*relations: str, mentions: str = MENTIONS) -> str:
    entity = f'<entity ID="E" TYPE="PER" SUBTYPE="Individual">{mentions}</entity>'
    head = '<?xml version="1.0"?>\n<!DOCTYPE source_file SYSTEM "apf.v5.1.1.dtd">\n'
    return f'{head}<source_file><document DOCID="X1">{entity}{"".join(relations)}</document></source_file>'


def write_ldc(folder: Path, annotation: str, name: str = "X1", place: str = "data/English/nw/timex2norm") -> None:
    put(folder / "ace2005" / place / f"{name}.sgm", SGM)
    put(folder / "ace2005" / place / f"{name}.apf.xml", annotation)


def read_ace(folder: Path) -> LabelledData:
    return read_data("ace2005", [folder])


class TestAce:
    def test_heads_become_words_of_their_sentence(self, tmp_path: Path) -> None:
        found = (
            relation("ORG-AFF", "Employment", "E1", "E2"),
            relation("PHYS", "Located", "E3", "E4"),
            relation("PER-SOC", "Family", "E6", "E5"),
            relation("PHYS", "Located", "E6", "E7"),
            relation("METONYMY", "", "E2", "E1"),
        )
        write_ldc(tmp_path, apf(*found))
        data = read_ace(tmp_path)
        assert [(one.label, *marked(one)) for one in data.train] == [
            ("Employment", "Ann Lee", "AT & T"),
            ("Located", "Kofi Roe", "Accra"),
            ("Family", "wife", "Roe"),
            ("Located", "wife", "U.S"),
        ]
        assert " ".join(data.train[0].tokens) == "Dr . Ann Lee of AT & T met Kofi Roe in Accra ."
        assert data.train[2].tokens[:4] == ('"', "Roe", "'", "s")
        assert "left out: 1 METONYMY relations, which have no subtype" in data.notes
        assert data.grouping("paper")["task-01"] == ("Employment", "Located")

    def test_only_the_english_final_annotation_counts(self, tmp_path: Path) -> None:
        write_ldc(tmp_path, apf(relation("PHYS", "Located", "E3", "E4")))
        for place in ("data/English/nw/adj", "data/Arabic/nw/timex2norm"):
            write_ldc(tmp_path, "not XML", place=place)
        assert [one.label for one in read_ace(tmp_path).train] == ["Located"]

    def test_documents_are_divided_whole(self, tmp_path: Path) -> None:
        both = apf(relation("PHYS", "Located", "E3", "E4"), relation("ORG-AFF", "Employment", "E1", "E2"))
        for number in range(20):
            put(tmp_path / f"ace2005/D{number}.sgm", SGM.replace("nothing", f"nothing {number}"))
            put(tmp_path / f"ace2005/D{number}.apf.xml", both)
        data = read_ace(tmp_path)
        assert [len(part) for part in (data.train, data.validation, data.test)] == [32, 4, 4]
        assert any("16 for train, 2 for validation, 2 for test" in note for note in data.notes)

    def test_words_that_are_not_where_the_offsets_lead_are_left_out_and_counted(self, tmp_path: Path) -> None:
        moved = MENTIONS.replace(">Accra<", ">Lagos<")
        found = (relation("PHYS", "Located", "E3", "E4"), relation("ORG-AFF", "Employment", "E1", "E2"))
        write_ldc(tmp_path, apf(*found, mentions=moved))
        data = read_ace(tmp_path)
        assert [one.label for one in data.train] == ["Employment"]
        assert any("1 relations whose offsets do not match the annotated words" in note for note in data.notes)

    @pytest.mark.parametrize(
        ("annotation", "said"),
        [
            (apf(relation("PHYS", "Nowhere", "E3", "E4")), "relation_mention R-1: 'Nowhere' is not a subtype"),
            (apf(relation("PHYS", "Located", "E3", "E99")), "relation_mention R-1: no entity_mention 'E99'"),
            (apf(mentions='<entity_mention ID="E1"/>'), "entity_mention 'E1' has no head/charseq"),
            (apf()[:-30], "cannot be read: unclosed token"),
            ('<!DOCTYPE a [<!ENTITY b "c">]><a/>', "declares XML entities"),
            (apf(), "no usable training example"),
        ],
    )
    def test_says_what_is_wrong(self, tmp_path: Path, annotation: str, said: str) -> None:
        write_ldc(tmp_path, annotation)
        assert said in reasons("ace2005", tmp_path)

    def test_an_annotation_without_its_text_is_named(self, tmp_path: Path) -> None:
        write_ldc(tmp_path, apf(relation("PHYS", "Located", "E3", "E4")))
        write_ldc(tmp_path, apf(relation("PHYS", "Located", "E3", "E4")), name="X2")
        next(tmp_path.rglob("X2.sgm")).unlink()
        assert "X2.sgm: cannot be read: no such file" in reasons("ace2005", tmp_path)


DYGIE: dict[str, Any] = {
    "doc_key": "X1",
    "sentences": [["Ann", "Lee", "left", "."], ["Kofi", "Roe", "is", "in", "Accra", "."]],
    "ner": [[], []],
    "relations": [[], [[4, 5, 8, 8, "PHYS.Located"]]],
}


class TestDygie:
    def test_positions_count_the_documents_tokens(self, tmp_path: Path) -> None:
        for stem in ("train", "dev", "test"):
            put(tmp_path / f"ace2005/{stem}.json", json.dumps(DYGIE) + "\n")
        data = read_ace(tmp_path)
        (only,) = data.train
        assert (only.label, marked(only), only.tail) == ("Located", ("Kofi Roe", "Accra"), Span(4, 5))
        assert len(data.validation) == len(data.test) == 1

    def test_one_file_is_divided_by_document(self, tmp_path: Path) -> None:
        documents = [
            DYGIE | {"doc_key": f"D{at}", "sentences": [["Ann"] * 4, [f"K{at}", "R", "is", "in", "A", "."]]}
            for at in range(10)
        ]
        put(tmp_path / "ace2005/all.jsonl", "".join(json.dumps(one) + "\n" for one in documents))
        data = read_ace(tmp_path)
        assert [len(part) for part in (data.train, data.validation, data.test)] == [8, 1, 1]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"relations": [[], [[0, 1, 8, 8, "Located"]]]}, "row 1: relation [0, 1, 8, 8, 'Located'] lies outside"),
            (
                {"relations": [[], [[4, 5, 8, 8, "PHYS"]]]},
                "row 1: 'PHYS' is not a subtype of a relation; known: Artifact",
            ),
            ({"relations": [[]]}, "row 1: 2 sentences, but lists of relations for 1"),
            ({"relations": [[], [[4, 5, "Located"]]]}, "expected [head start, head end, tail start, tail end, label]"),
            ({"relations": None}, "relations must be a list of relations"),
        ],
    )
    def test_says_what_is_wrong(self, tmp_path: Path, change: dict[str, Any], said: str) -> None:
        put(tmp_path / "ace2005/all.jsonl", json.dumps(DYGIE | change))
        assert said in reasons("ace2005", tmp_path)


def test_a_stream_of_the_papers_tasks_can_be_made(tmp_path: Path) -> None:
    names = ("per:origin", "org:founded", "per:city_of_birth", "per:charges")
    write_tacred(tmp_path, [tacred_row(name, at) for at, name in enumerate(names)])
    data = read_data("tacred", [tmp_path])
    tasks = {name: labels for name, labels in data.grouping().items() if len(labels) > 1}
    assert stream_of(data, tasks)[0].labels == ("organization founded", "person origin")

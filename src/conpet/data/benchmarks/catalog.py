"""The benchmark data sets that conpet can read, and where to find them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from conpet.data.benchmarks.paper import with_paper
from conpet.data.benchmarks.plain import read_plain
from conpet.data.benchmarks.reading import listed
from conpet.data.example import Kind
from conpet.data.labelled import SUBSETS, LabelledData
from conpet.data.raw import ReadOptions
from conpet.data.readers import read_stream
from conpet.data.stream_layout import find_stream
from conpet.errors import DataError, Problem, UnknownNameError, did_you_mean
from conpet.registry import Registry

FOLDERS = "CONPET_DATA"
"""Environment variable: folders to search for data sets, separated like PATH."""
_SOURCE = Path(__file__).parents[4]
_ROWS = ("train.jsonl.gz", "validation.jsonl.gz", "test.jsonl.gz")
_SHIPPED = "conpet's own source, folder benchmarks/data"


@dataclass(frozen=True, slots=True)
class DataSet:
    """A benchmark data set.

    Attributes:
        name: Its name, also the name of its folder.
        title: A short description.
        kind: The kind of its examples.
        labels: Number of its labels.
        licence: Its licence; "LDC" means the user agreement of the Linguistic Data Consortium.
        source: Where to get it.
        forms: The sets of files it may consist of, as patterns relative to its folder; the usual form first.
        paper: The key of its tasks in the paper (see `conpet.data.benchmarks.paper`), or None.
    """

    name: str
    title: str
    kind: Kind
    labels: int
    licence: str
    source: str
    forms: tuple[tuple[str, ...], ...]
    paper: str | None = None

    def lacking(self, folder: Path) -> tuple[str, ...]:
        """Return the files missing from a folder for the most similar form; empty if complete."""
        lacks = [tuple(pattern for pattern in form if not any(folder.glob(pattern))) for form in self.forms]
        shares = [len(lack) / len(form) for lack, form in zip(lacks, self.forms, strict=True)]
        return lacks[shares.index(min(shares))]

    @property
    def files(self) -> str:
        """The files it may consist of, as text for messages."""
        return "; or ".join(", ".join(form) for form in self.forms)


_TYPING_FORMS = (("train.*", "dev.*", "test.*"), ("train.*", "test.*"), ("augmented_train.*", "g_dev.*", "g_test.*"))
_CLINC_FORMS = (("data_full.json", "domains.json"), ("data_full.json",), _ROWS)
_ACE_FORMS = (("**/*.apf.xml", "**/*.sgm"), ("train.json*", "dev.json*", "test.json*"), ("*.json*",))
_LDC = "https://catalog.ldc.upenn.edu/"
DATA_SETS: Mapping[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            "clinc150",
            "intents, and out-of-scope queries",
            Kind.TEXT,
            150,
            "CC BY 3.0",
            "https://github.com/clinc/oos-eval",
            _CLINC_FORMS,
        ),
        DataSet(
            "banking77",
            "intents",
            Kind.TEXT,
            77,
            "CC BY 4.0",
            "https://github.com/PolyAI-LDN/task-specific-datasets",
            (("train.csv", "test.csv"), _ROWS),
        ),
        DataSet("hwu64", "a part of HWU64: intents", Kind.TEXT, 64, "CC BY 4.0", _SHIPPED, (_ROWS,)),
        DataSet(
            "sib200_ja",
            "SIB-200, Japanese: topics",
            Kind.TEXT,
            7,
            "CC BY-SA 4.0",
            _SHIPPED,
            (_ROWS,),
        ),
        DataSet("fewrel80", "a part of FewRel: relations", Kind.RELATION, 80, "MIT", _SHIPPED, (_ROWS,), "fewrel"),
        DataSet(
            "semeval2010_task8",
            "SemEval-2010 task 8: relations",
            Kind.RELATION,
            17,
            "CC BY 3.0",
            _SHIPPED,
            (_ROWS,),
        ),
        DataSet(
            "fewnerd53",
            "a part of Few-NERD: entity types",
            Kind.TYPING,
            53,
            "CC BY-SA 4.0",
            _SHIPPED,
            (_ROWS,),
            "fewnerd",
        ),
        DataSet(
            "fewrel",
            "FewRel: relations",
            Kind.RELATION,
            80,
            "MIT",
            "https://github.com/thunlp/FewRel",
            (("train_wiki.json", "val_wiki.json"),),
            "fewrel",
        ),
        DataSet(
            "fewnerd",
            "Few-NERD: entity types",
            Kind.TYPING,
            66,
            "CC BY-SA 4.0",
            "https://github.com/thunlp/Few-NERD",
            (tuple(f"supervised/{subset}.txt" for subset in ("train", "dev", "test")),),
            "fewnerd",
        ),
        DataSet(
            "tacred",
            "TACRED: relations",
            Kind.RELATION,
            41,
            "LDC",
            f"{_LDC}LDC2018T24",
            (("train.json", "dev.json", "test.json"),),
            "tacred",
        ),
        DataSet(
            "ace2005",
            "ACE 2005: relations",
            Kind.RELATION,
            18,
            "LDC",
            f"{_LDC}LDC2006T06",
            _ACE_FORMS,
            "ace2005",
        ),
        DataSet(
            "ontonotes",
            "OntoNotes: fine entity types",
            Kind.TYPING,
            86,
            "LDC",
            f"{_LDC}LDC2013T19, with the types of Gillick et al. (2014)",
            _TYPING_FORMS,
            "ontonotes",
        ),
        DataSet(
            "bbn",
            "BBN: fine entity types",
            Kind.TYPING,
            46,
            "LDC",
            f"{_LDC}LDC2005T33",
            _TYPING_FORMS,
            "bbn",
        ),
    )
}
READERS = Registry(
    "data set",
    "conpet.datasets",
    {
        "clinc150": "conpet.data.benchmarks.intents:read_clinc150",
        "banking77": "conpet.data.benchmarks.intents:read_banking77",
        "hwu64": "conpet.data.benchmarks.plain:read_plain",
        "sib200_ja": "conpet.data.benchmarks.plain:read_plain",
        "fewrel80": "conpet.data.benchmarks.plain:read_plain",
        "semeval2010_task8": "conpet.data.benchmarks.plain:read_plain",
        "fewnerd53": "conpet.data.benchmarks.plain:read_plain",
        "fewrel": "conpet.data.benchmarks.fewrel:read_fewrel",
        "fewnerd": "conpet.data.benchmarks.fewnerd:read_fewnerd",
        "tacred": "conpet.data.benchmarks.tacred:read_tacred",
        "ace2005": "conpet.data.benchmarks.ace:read_ace",
        "ontonotes": "conpet.data.benchmarks.entity_typing:read_entity_typing",
        "bbn": "conpet.data.benchmarks.entity_typing:read_entity_typing",
    },
)
"""Maps a data set to its reader: a function of its name and folder."""


def data_folders(first: Sequence[Path] = ()) -> list[Path]:
    """Return the folders to search for data sets, in order.

    Args:
        first: Folders named by the user; `CONPET_DATA` and `benchmarks/data` in conpet's source come after them.
    """
    named = [Path(entry).expanduser() for entry in os.environ.get(FOLDERS, "").split(os.pathsep) if entry]
    return [*first, *named, _SOURCE / "benchmarks" / "data"]


def find_data(name: str, folders: Sequence[Path] = ()) -> Path | None:
    """Return the first existing folder of a data set, or None. `DataSet.lacking` checks its files.

    Args:
        name: The data set's name.
        folders: As in `data_folders`.
    """
    return next((folder / name for folder in data_folders(folders) if (folder / name).is_dir()), None)


def how_to_get(name: str, folders: Sequence[Path] = ()) -> str:
    """Describe where to get a data set of `DATA_SETS` and where to put its files."""
    data_set = DATA_SETS[name]
    *named, _ = data_folders(folders)
    place = f"{named[0].absolute() / name}" if named else f"{name}, in a folder named by {FOLDERS} or --data-folder"
    return f"get it from {data_set.source}; put these files into {place}: {data_set.files}"


def read_data(name: str, folders: Sequence[Path] = (), options: ReadOptions | None = None) -> LabelledData:
    """Read a benchmark data set, or the user's own labelled data.

    Args:
        name: One of `DATA_SETS`; or a path: a stream folder (see `conpet.data.read_stream`; its tasks become the
            grouping "tasks"), or a file or folder of labelled rows (see `conpet.data.benchmarks.plain.read_plain`).
        folders: Where to search for data sets, as in `data_folders`; a path is resolved in these folders first, then
            in the working directory.
        options: How to read the user's own files.

    Raises:
        UnknownNameError: There is no such data set or path.
        DataError: It is missing (the message says where to get it and where to put it), or it has errors (all are
            in `problems`).
        ConfigError: A Parquet file is read where pyarrow is not installed.
    """
    if name not in DATA_SETS:
        return _read_path(name, folders, options or ReadOptions())
    folder = find_data(name, folders)
    if folder is None:
        raise DataError(f"the data set {name} is missing: {how_to_get(name, folders)}")
    data_set = DATA_SETS[name]
    if lacking := data_set.lacking(folder):
        present = listed(path.name for path in folder.iterdir()) or "nothing"
        reason = f"lacks {', '.join(lacking)}; expected {data_set.files}; found {present}"
        raise DataError(
            f"the data set {name} is not complete; add the missing files", [Problem(str(folder), None, reason)]
        )
    data: LabelledData = READERS[name](name, folder)
    return data if data_set.paper is None else with_paper(data, data_set.paper)


def _read_path(name: str, folders: Sequence[Path], options: ReadOptions) -> LabelledData:
    path = Path(name).expanduser()
    path = next((found for folder in folders if (found := folder / path).exists()), path)
    if not path.exists():
        tried = dict.fromkeys(str(folder.absolute()) for folder in (*folders, Path()))
        seen = "" if path.is_absolute() else f" in {' or '.join(tried)}"
        raise UnknownNameError(
            f"no data set, file or folder {name!r}{seen}{did_you_mean(name, DATA_SETS)}; "
            f"data sets: {', '.join(DATA_SETS)}"
        )
    sources, _ = find_stream(path, options)
    if [source.path for source in sources] == [path]:
        return read_plain(None, path, options)
    stream = read_stream(path, **asdict(options))
    own = [task.name for task in stream if task.template is not None or task.settings]
    notes = [f"task {task.name}: {note}" for task in stream for note in task.notes]
    if own:
        notes.append(f"the templates and settings of these tasks were ignored: {listed(own)}")
    train, validation, test = (
        tuple(example for task in stream for example in getattr(task, subset)) for subset in SUBSETS
    )
    return LabelledData(
        path.resolve().name,
        train,
        validation,
        test,
        groupings={"tasks": {task.name: task.labels for task in stream}},
        notes=tuple(notes),
    )

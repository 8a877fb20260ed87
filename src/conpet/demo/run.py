"""The demo: learn ten tasks in a new workspace, consolidate it, then show predictions, results and next steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from conpet.api import ConPET
from conpet.commands.report import overall, report_data
from conpet.data import Example, TaskStream
from conpet.demo.consolidation import (
    Consolidate,
    consolidated,
    refusal,
    result_of_learning,
    settled,
    try_consolidation,
)
from conpet.demo.stream import LIVE_EXAMPLES, demo_stream
from conpet.errors import WorkspaceExistsError
from conpet.modules.parameter_count import llama_7b_count
from conpet.report import text
from conpet.report.data import Event, ReportData
from conpet.report.files import REPORT_FOLDER, ReportFiles, write_report
from conpet.report.tables import final_table, matrix_table
from conpet.report.view import PageView
from conpet.store import Store
from conpet.types import Prediction

Teach = Callable[[ConPET, TaskStream], None]


class Demo:
    """The demo in one folder.

    Args:
        path: Folder of the workspace; an interrupted demo there is continued.
        console: Console for the results.
        say: Called with a message before each slow step.
        teach: Learns a stream in a workspace and shows the results.
        consolidate: Consolidates a workspace and shows the progress; None to leave the consolidation out.
        stream: The tasks.
        live: Inputs to predict at the end, with the expected label, if any.
    """

    def __init__(
        self,
        path: Path,
        console: Console,
        say: Callable[[str], None],
        teach: Teach,
        consolidate: Consolidate | None,
        stream: TaskStream | None = None,
        live: Sequence[Example] = LIVE_EXAMPLES,
    ) -> None:
        self._path = path
        self._console = console
        self._say = say
        self._teach = teach
        self._consolidate = consolidate
        self._stream = stream or demo_stream()
        self._live = live

    def run(self, backbone: str, *, fresh: bool = False) -> ReportFiles:
        """Run the demo.

        Args:
            backbone: The backbone of a new workspace.
            fresh: Whether to delete the workspace of an earlier demo first.

        Raises:
            WorkspaceExistsError: The path is a workspace with other tasks, or not empty.
        """
        workspace = self._workspace(backbone, fresh)
        done = self._learned(workspace)
        self._introduce(workspace, done)
        if done < len(self._stream):
            self._teach(workspace, self._stream)
        else:
            self._console.print()
            self._console.print(matrix_table(report_data(workspace.store).events))
        self._show_result(result_of_learning(workspace.store))
        self._show_consolidation(workspace)
        self._show_live(workspace)
        files = write_report(report_data(workspace.store), workspace.path / REPORT_FOLDER)
        self._show_next(files)
        return files

    def _workspace(self, backbone: str, fresh: bool) -> ConPET:
        if (self._path / "workspace.sqlite").exists():
            self._require_demo()
            if not fresh:
                return ConPET.open(self._path)
            shutil.rmtree(self._path)
        self._say(f"preparing the backbone {backbone}")
        return ConPET.create(self._path, backbone, progress=self._say)

    def _require_demo(self) -> None:
        with Store.open(self._path).snapshot() as snapshot:
            foreign = {task.name for task in snapshot.tasks} - {task.name for task in self._stream}
        if foreign:
            raise WorkspaceExistsError(
                f"{self._path} is a workspace with other tasks ({', '.join(sorted(foreign))}); "
                "choose another folder for the demo with --workspace"
            )

    def _learned(self, workspace: ConPET) -> int:
        present = {task.name: task.active.digest for task in workspace.tasks}
        return sum(present.get(task.name) == task.digest for task in self._stream)

    def _introduce(self, workspace: ConPET, done: int) -> None:
        tasks = len(self._stream)
        labels = sum(len(task.labels) for task in self._stream)
        train, test = (sum(len(getattr(task, subset)) for task in self._stream) for subset in ("train", "test"))
        backbone = workspace.store.header().backbone
        self._title("conpet demo")
        self._paragraph(
            f"A frozen language model, {backbone['name']} ({text.short_count(backbone['parameters'])} parameters), "
            f"learns the {labels} intents of {tasks} departments from CLINC150, one department after another, with "
            f"{train // labels} training examples per intent. After each department, it is tested on all intents "
            f"so far ({text.count(test)} test examples at the end)."
        )
        self._paragraph(
            "Beside each result stands logistic regression (log. reg.): what you could write in five lines, trained on "
            "the frozen features of all intents so far."
        )
        if done == tasks:
            left = self._consolidate and not settled(workspace.store)
            next_step = "The consolidation is left to do." if left else "Use --fresh to start again."
            self._paragraph(f"All tasks are already learned in {self._path}; here are the results. {next_step}")
        elif done:
            self._paragraph(f"Continuing in {self._path}: {done} of {tasks} departments are already learned.")
        else:
            self._paragraph(f"The workspace is {self._path}. You can stop at any time; the same command resumes.")

    def _show_result(self, data: ReportData) -> None:
        last = overall(data)
        if last is None:
            return
        self._console.print()
        self._console.print(final_table(last, data.workspace.backbone))
        self._console.print()
        self._paragraph(PageView(data).lead)
        self._paragraph(_cost(last))
        self._paragraph(
            "The paper's 3,000 times, computed for LLaMA-7B with LoRA of rank 4 on its query and key maps: "
            f"{llama_7b_count()}."
        )

    def _show_consolidation(self, workspace: ConPET) -> None:
        """Consolidate, unless that was done or refused before, and show the result."""
        store = workspace.store
        if self._consolidate is None and not consolidated(store):
            return
        self._title("Consolidation")
        self._paragraph(
            "A consolidation tunes all layers of the backbone on the stored examples of all tasks and learns "
            "everything again over it. It is kept only if it is no worse on validation examples. "
            "It helps most on relations and entity types; on intents it may not help."
        )
        if self._consolidate and not settled(store):
            try_consolidation(workspace, self._consolidate)
        if done := consolidated(store):
            self._console.print(done.table())
            self._console.print()
            self._paragraph(done.cost)
            self._console.print(
                f"to go back: conpet restore {self._path} {done.before.id}", style="dim", soft_wrap=True
            )
        elif refused := refusal(store):
            self._paragraph(f"Not kept after {text.duration(refused.seconds)}: {refused.reason}.")
            self._paragraph("The demo goes on with the workspace as it was.")

    def _show_live(self, workspace: ConPET) -> None:
        self._title("Predictions for new sentences")
        for example, prediction in zip(self._live, workspace.predict(self._live), strict=True):
            self._console.print(Text(f"“{example.text}”"))
            self._console.print(Padding(_answer(example, prediction), (0, 0, 0, 4), expand=False))

    def _show_next(self, files: ReportFiles) -> None:
        self._title("Next")
        for what, how in (
            ("the report", str(files.page)),
            ("predict", f'conpet predict {self._path} "where is my suitcase"'),
            ("your own files", "conpet init support"),
            ("", "conpet learn support FOLDER"),
            ("this data as files", "conpet demo --write-data clinc150"),
        ):
            self._console.print(f"{what:<20}{how}", markup=False, soft_wrap=True)

    def _title(self, title: str) -> None:
        self._console.print()
        self._console.print(title, style="bold")

    def _paragraph(self, paragraph: str) -> None:
        self._console.print(Text(paragraph))


def _answer(example: Example, prediction: Prediction) -> Text:
    answer = Text()
    answer.append(prediction.shown, "bold")
    answer.append(f" {text.percent(prediction.score)}, from {prediction.task} version {prediction.version}")
    others = ", ".join(f"{label.shown} {text.percent(label.score)}" for label in prediction.runners_up)
    answer.append(f"; then {others}" if others else "", "dim")
    if example.label is None:
        answer.append(" (no intent fits)", "yellow")
    elif example.label != prediction.label:
        answer.append(f" (expected {example.label})", "yellow")
    return answer


def _cost(last: Event) -> str:
    total = last.total_cost
    slowest = max(last.cost.items(), key=lambda item: item[1].seconds)
    return (
        f"Learning and testing took {text.duration(total.seconds)} on this machine; the longest stage was "
        f"{slowest[0]!r} ({text.duration(slowest[1].seconds)}). It took {text.count(total.optimiser_steps)} optimiser "
        f"steps and the equivalent of {text.short_count(total.backbone_tokens)} tokens through the whole backbone."
    )

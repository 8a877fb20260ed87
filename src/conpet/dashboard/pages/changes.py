"""Changes of tasks and labels: each page says what will happen, and then starts the job that the API would start."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from conpet.commands.checks import consolidation_blocker, owner_of
from conpet.commands.generations import holding
from conpet.commands.stored_rows import examples_to_show
from conpet.dashboard.health import consolidation_due
from conpet.dashboard.names import VERBS
from conpet.dashboard.navigation import page_router
from conpet.dashboard.templating import link
from conpet.dashboard.visit import Visit, visits
from conpet.data import Example
from conpet.data.rows import label_name
from conpet.errors import DataError, UnknownNameError
from conpet.jobs.records import JobKind, JobRequest
from conpet.problem_details import ApiProblem
from conpet.replay.memory import Subset
from conpet.serve.keys import Role
from conpet.serve.submit import Submitted, submit_change, submit_relabelling
from conpet.store import Snapshot, TaskRecord

router = page_router()
Operator = Annotated[Visit, visits(Role.OPERATE)]
Name = Annotated[str, Query(max_length=1000)]

ONCE = "once"
"""Field with a random value, by which a form that is sent twice is known: it starts one job."""
SAFE = {"evaluate": True, "gate": True}
"""Options of all changes: pages never leave out the gate."""


def once() -> dict[str, str]:
    """Return the hidden field of a form that must not start two jobs."""
    return {ONCE: secrets.token_hex(12)}


def started(visit: Visit, submitted: Submitted) -> Response:
    """Lead to the page of a job."""
    return visit.redirect(link(f"jobs/{submitted.job.id}"))


@router.get("/tasks/rename")
async def ask_to_rename(visit: Operator, label: Name) -> Response:
    """Ask for the new name of a label."""
    return _rename_form(visit, label, label, "")


@router.post("/tasks/rename")
async def rename(visit: Operator) -> Response:
    """Rename a label."""
    label, given = visit.form["label"], visit.form.get("name")
    snapshot = snapshot_of(visit)
    try:
        name = label_name(given) if given else ""
    except DataError as error:
        return _rename_form(visit, label, given, error.summary)
    if not name:
        return _rename_form(visit, label, given, visit.gettext("Type the new name."))
    if name in snapshot.owners:
        problem = visit.gettext("There is a label of this name already: in task %(task)s.", task=snapshot.owners[name])
        return _rename_form(visit, label, given, problem)
    options = {"label": label, "name": name, **SAFE}
    return started(
        visit, await submit_relabelling(visit.request, visit.caller, JobKind.RENAME, options, once_key(visit))
    )


@router.get("/tasks/retire")
async def ask_to_retire(visit: Operator, label: Name) -> Response:
    """Say what retiring a label does."""
    task = owner_of(snapshot_of(visit), label)
    if len(task.active.labels) == 1:
        raise ApiProblem(409, "last-label", "it is the last label of its task: remove the task instead")
    number, kept = await asyncio.to_thread(
        lambda: (len(examples_of(task, label)), holding(visit.context.opened().store, task.name, [label]))
    )
    effects = [
        visit.ngettext(
            "The label “%(label)s” of the task “%(task)s” goes, with its %(num)s stored example.",
            "The label “%(label)s” of the task “%(task)s” goes, with its %(num)s stored examples.",
            number,
            label=label,
            task=task.name,
        ),
        visit.gettext("Inputs that had this label get another one, or are declined."),
        visit.gettext(
            "Older versions of the task are deleted, because they hold these examples. This cannot be undone."
        ),
        *_dropped(visit, kept),
        visit.gettext("Nothing is trained again."),
        *_safeguards(visit),
    ]
    return visit.confirm(
        title=visit.gettext("Retire the label “%(label)s”?", label=label),
        effects=effects,
        action=link("tasks/retire"),
        fields={"label": label, **once()},
        button=visit.gettext("Retire the label"),
        back=link("tasks/task", name=task.name),
        danger=True,
    )


@router.post("/tasks/retire")
async def retire(visit: Operator) -> Response:
    """Retire a label."""
    options = {"label": visit.form["label"], **SAFE}
    return started(
        visit, await submit_relabelling(visit.request, visit.caller, JobKind.RETIRE, options, once_key(visit))
    )


@router.get("/tasks/activate")
async def ask_to_roll_back(visit: Operator, name: Name, version: int) -> Response:
    """Say what going back to a version does."""
    task = snapshot_of(visit).task(name)
    wanted, present = task.version(version), task.active
    added = sorted(set(wanted.labels) - set(present.labels))
    gone = sorted(set(present.labels) - set(wanted.labels))
    effects = [
        visit.gettext(
            "The task “%(task)s” answers with version %(wanted)s instead of version %(present)s.",
            task=name,
            wanted=version,
            present=present.number,
        ),
        *([visit.gettext("These labels come back: %(labels)s.", labels=", ".join(added))] if added else []),
        *([visit.gettext("These labels are no longer given: %(labels)s.", labels=", ".join(gone))] if gone else []),
        visit.gettext("The version of today is kept: you can go forward to it again."),
        *_safeguards(visit),
    ]
    return visit.confirm(
        title=visit.gettext("Roll “%(task)s” back to version %(version)s?", task=name, version=version),
        effects=effects,
        action=link("tasks/activate"),
        fields={"name": name, "version": str(version), **once()},
        button=visit.gettext("Roll back"),
        back=link("tasks/task", name=name, view="versions"),
    )


@router.post("/tasks/activate")
async def roll_back(visit: Operator) -> Response:
    """Make another version of a task active."""
    name, version = visit.form["name"], visit.form.number("version", 1)
    options = {"task": name, "version": version, **SAFE}
    wanted = JobRequest(JobKind.ACTIVATE, options, (name,))
    return started(visit, await submit_change(visit.request, visit.caller, wanted, once_key(visit)))


@router.get("/tasks/remove")
async def ask_to_remove(visit: Operator, name: Name) -> Response:
    """Say what removing a task does."""
    task = snapshot_of(visit).task(name)
    kept = await asyncio.to_thread(holding, visit.context.opened().store, name)
    effects = [
        visit.ngettext(
            "The task “%(task)s” goes, with its %(num)s label, all its versions and stored examples.",
            "The task “%(task)s” goes, with its %(num)s labels, all its versions and stored examples.",
            len(task.active.labels),
            task=name,
        ),
        visit.gettext("Inputs that it answered get another answer, or are declined."),
        visit.gettext("This cannot be undone. To use the task again, learn it from its file."),
        *_dropped(visit, kept),
        *_safeguards(visit),
    ]
    return visit.confirm(
        title=visit.gettext("Remove the task “%(task)s”?", task=name),
        effects=effects,
        action=link("tasks/remove"),
        fields={"name": name, **once()},
        button=visit.gettext("Remove the task"),
        back=link("tasks/task", name=name),
        danger=True,
    )


@router.post("/tasks/remove")
async def remove(visit: Operator) -> Response:
    """Remove a task."""
    name = visit.form["name"]
    wanted = JobRequest(JobKind.REMOVE, {"task": name, **SAFE}, (name,))
    return started(visit, await submit_change(visit.request, visit.caller, wanted, once_key(visit)))


@router.get("/tasks/consolidate")
async def ask_to_consolidate(visit: Operator) -> Response:
    """Say what a consolidation does."""
    workspace = visit.context.opened()
    if blocker := consolidation_blocker(workspace.settings):
        raise ApiProblem(409, "cannot-consolidate", blocker)
    examples = workspace.learned_examples
    tuned = visit.ngettext(
        "The language model is tuned on the %(num)s training example of all tasks together.",
        "The language model is tuned on the %(num)s training examples of all tasks together.",
        examples,
    )
    trained = visit.ngettext(
        "A module is trained on the %(num)s training example of all tasks; the language model stays as it is.",
        "A module is trained on the %(num)s training examples of all tasks; the language model stays as it is.",
        examples,
    )
    effects = [
        trained if workspace.settings.consolidation.layers == "top" else tuned,
        visit.gettext("One module for all tasks replaces their modules."),
        visit.gettext("This takes much longer than learning a task. Answers go on meanwhile."),
        visit.gettext("The result is kept only if it is no worse on validation examples."),
        visit.gettext("The state before it is kept, so that you can go back to it."),
        *_safeguards(visit),
    ]
    return visit.confirm(
        title=visit.gettext("Consolidate?"),
        effects=effects,
        action=link("tasks/consolidate"),
        fields=once(),
        button=visit.gettext("Start the consolidation"),
        back=link("tasks"),
        reason=await asyncio.to_thread(consolidation_due, visit)
        or visit.gettext("A consolidation is not due yet. You may do it all the same."),
    )


@router.post("/tasks/consolidate")
async def consolidate(visit: Operator) -> Response:
    """Consolidate."""
    wanted = JobRequest(JobKind.CONSOLIDATE, {"bound": 0.0, "again": True, **SAFE})
    return started(visit, await submit_change(visit.request, visit.caller, wanted, once_key(visit)))


@router.get("/tasks/kept")
async def kept(visit: Operator) -> Response:
    """List the states that can be gone back to."""
    workspace = visit.context.opened()
    found = await asyncio.to_thread(lambda: workspace.generations)
    return visit.render("kept.html", generations=found[::-1], verbs=VERBS)


@router.get("/tasks/restore")
async def ask_to_restore(visit: Operator, generation: int) -> Response:
    """Say what going back to a kept state does."""
    workspace = visit.context.opened()
    found = await asyncio.to_thread(lambda: workspace.generations)
    wanted = next((one for one in found if one.number == generation and not one.present), None)
    if wanted is None:
        raise UnknownNameError(f"generation {generation} is not kept")
    present = {task.name for task in snapshot_of(visit).tasks}
    gone = sorted(present - set(wanted.tasks))
    effects = [
        visit.gettext("Tasks, versions, settings and the language model become again what they were then."),
        *(
            [visit.gettext("These tasks, learned since, are no longer there: %(tasks)s.", tasks=", ".join(gone))]
            if gone
            else []
        ),
        visit.gettext("The state of today is kept, too: you can go forward to it again."),
        *_safeguards(visit),
    ]
    return visit.confirm(
        title=visit.gettext("Go back to the state of generation %(number)s?", number=generation),
        effects=effects,
        action=link("tasks/restore"),
        fields={"generation": str(generation), **once()},
        button=visit.gettext("Go back"),
        back=link("tasks/kept"),
    )


@router.post("/tasks/restore")
async def restore(visit: Operator) -> Response:
    """Go back to a kept state."""
    wanted = JobRequest(JobKind.RESTORE, {"generation": visit.form.number("generation", 1), **SAFE})
    return started(visit, await submit_change(visit.request, visit.caller, wanted, once_key(visit)))


def snapshot_of(visit: Visit) -> Snapshot:
    """Return what answers now."""
    visit.context.ready()
    return visit.context.serving.live.snapshot


def once_key(visit: Visit) -> str | None:
    """Return the idempotency key of a form, or None."""
    return visit.form.get(ONCE) or None


def _dropped(visit: Visit, kept: Sequence[int]) -> Sequence[str]:
    """Return that kept states are deleted, because they hold what is removed; nothing if there are none."""
    if not kept:
        return []
    return [
        visit.ngettext(
            "The kept state of generation %(numbers)s is deleted, because it holds these examples. You can then no "
            "longer go back to it.",
            "The kept states of generations %(numbers)s are deleted, because they hold these examples. You can then no "
            "longer go back to them.",
            len(kept),
            numbers=", ".join(map(visit.formats.number, kept)),
        )
    ]


def _safeguards(visit: Visit) -> Sequence[str]:
    """Return what is true of all changes."""
    return [
        visit.gettext(
            "Before anything changes, the gate compares the answers to held-out examples of all earlier labels."
        ),
        visit.gettext("If they get clearly worse, nothing is changed, and you decide."),
    ]


def _rename_form(visit: Visit, label: str, name: str, problem: str) -> Response:
    task = owner_of(snapshot_of(visit), label)
    return visit.render(
        "rename.html",
        422 if problem else 200,
        label=label,
        task=task.name,
        name=name,
        problem=problem,
        effects=[
            visit.gettext("From then on, answers have the new name. Nothing is trained: the module stays as it is."),
            visit.gettext("The task gets a new version. You can roll it back to the old name."),
            visit.gettext("Programs that read the old name must be changed, too."),
        ],
        once=once(),
    )


def examples_of(task: TaskRecord, label: str) -> list[Example]:
    """Return the stored examples of a label, of all subsets; none if no texts are stored."""
    memory = examples_to_show(task.active)
    if memory.latent:
        return []
    return [
        example
        for subset in Subset
        for example in memory.chosen(
            subset, [position for position, name in enumerate(memory.labels(subset)) if name == label]
        )
    ]

"""What jobs, changes and stages are called in pages."""

from __future__ import annotations

from conpet.dashboard.messages import marked
from conpet.dashboard.visit import Visit
from conpet.jobs.records import KEY, USER, Job, JobKind, JobState
from conpet.review.records import VerdictKind
from conpet.serve.keys import KeyStore
from conpet.types import Decision

KINDS = {
    JobKind.LEARN: marked("Learn a task"),
    JobKind.EXTEND: marked("Learn more examples"),
    JobKind.REMOVE: marked("Remove a task"),
    JobKind.ACTIVATE: marked("Roll back to another version"),
    JobKind.CONSOLIDATE: marked("Consolidate"),
    JobKind.PROMOTE: marked("Make a refused change"),
    JobKind.FORGET: marked("Forget data"),
    JobKind.RENAME: marked("Rename a label"),
    JobKind.RETIRE: marked("Retire a label"),
    JobKind.SPLIT: marked("Split a label"),
    JobKind.RESTORE: marked("Go back to a kept state"),
    JobKind.REVIEW: marked("Learn what was reviewed"),
}
"""Kinds of jobs."""
STATES = {
    JobState.QUEUED: (marked("Waiting"), "plain"),
    JobState.RUNNING: (marked("Running"), "plain"),
    JobState.CANCELLING: (marked("Stopping"), "warn"),
    JobState.SUCCEEDED: (marked("Done"), "good"),
    JobState.FAILED: (marked("Failed"), "bad"),
    JobState.CANCELLED: (marked("Cancelled"), "warn"),
}
"""States of jobs, with the tone of their badge."""
STAGES = {
    "waiting": marked("waiting for another change"),
    "prefix": marked("reading examples"),
    "selector": marked("training the selector"),
    "module": marked("training the module"),
    "warm-up": marked("warming up the backbone"),
    "statistics": marked("computing statistics"),
    "consolidation": marked("tuning the backbone"),
    "validation": marked("comparing on validation examples"),
    "gate": marked("comparing earlier answers"),
    "evaluation": marked("evaluating"),
    "decisions": marked("fitting decisions"),
    "search": marked("trying designs"),
}
"""Stages of a change; others are shown as they are."""
VERBS = {
    "create": marked("Created"),
    "learn": marked("Learned"),
    "rollback": marked("Rolled back"),
    "remove": marked("Removed"),
    "tune": marked("Tuned"),
    "costs": marked("Costs set"),
    "log": marked("Recording set"),
    "rename": marked("Label renamed"),
    "retire": marked("Label retired"),
    "split": marked("Label split"),
    "merge": marked("Modules merged"),
    "upgrade": marked("Upgraded"),
    "consolidate": marked("Consolidated"),
    "restore": marked("Generation restored"),
    "forget": marked("Data forgotten"),
}
"""Changes in the history; others are shown as they are."""
ACTIONS = {
    "key-made": marked("Key made"),
    "key-revoked": marked("Key revoked"),
    "key-refused": marked("Wrong key refused"),
    "signed-in": marked("Signed in"),
    "job-requested": marked("Change requested"),
    "job-cancelled": marked("Change cancelled"),
    "candidate-discarded": marked("Refused change deleted"),
    "generation-dropped": marked("Kept state deleted"),
    "watching-restarted": marked("Watching begun anew"),
    "predictions-pruned": marked("Old recorded predictions deleted"),
    "answer-reported": marked("Answer reported as wrong"),
    "review-drawn": marked("Answers drawn for review"),
    "review-answered": marked("Item reviewed"),
    "review-undone": marked("Verdict taken back"),
    "review-imported": marked("File imported into review"),
    "review-exported": marked("Review exported"),
}
"""What people did beside the changes; others are shown as they are."""

DECISIONS: dict[Decision, str] = {
    "answer": marked("answered"),
    "ask": marked("asked back"),
    "decline": marked("declined"),
}
"""Decisions."""

VERDICTS: dict[VerdictKind, str] = {
    VerdictKind.CONFIRM: marked("confirmed"),
    VerdictKind.CORRECT: marked("corrected"),
    VerdictKind.NEW: marked("new label"),
    VerdictKind.NONE: marked("nothing fits"),
    VerdictKind.SKIP: marked("skipped"),
}
"""What reviewers have said."""


def state_of(job: Job) -> tuple[str, str]:
    """Return the name of a job's state, to be translated, and the tone of its badge."""
    refused = job.state is JobState.FAILED and (job.error or {}).get("candidate") is not None
    return (marked("Stopped by the gate"), "warn") if refused else STATES[job.state]


def about_job(visit: Visit, job: Job) -> str:
    """Return what a job changes beside its tasks: labels, a version or a generation; "" for nothing."""
    options = job.options
    match job.kind:
        case JobKind.RENAME:
            return visit.gettext("“%(old)s” becomes “%(new)s”", old=options["label"], new=options["name"])
        case JobKind.RETIRE | JobKind.SPLIT:
            return visit.gettext("label “%(label)s”", label=options["label"])
        case JobKind.ACTIVATE:
            return visit.gettext("version %(number)s", number=options["version"])
        case JobKind.RESTORE:
            return visit.gettext("generation %(number)s", number=options["generation"])
        case _:
            return ""


def actor_name(keys: KeyStore, actor: str) -> str:
    """Return the name of whoever made a change, given its entry in the history."""
    return caller_name(keys, actor.removeprefix(KEY))


def caller_name(keys: KeyStore, caller: str) -> str:
    """Return the name of whoever requested something: of a key, of a user whom a proxy has named, or an address."""
    if caller.startswith(USER):
        return caller.removeprefix(USER)
    record = next((key for key in keys.list() if key.id == caller), None)
    return (record.name or record.id) if record else caller

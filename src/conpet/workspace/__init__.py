"""The workspace: what a user creates, opens, teaches and asks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from conpet.workspace.results import Candidate, Evaluation, LearnReport, Prediction, TaskTally

if TYPE_CHECKING:
    from conpet.workspace.facade import ConPET

__all__ = ["Candidate", "ConPET", "Evaluation", "LearnReport", "Prediction", "TaskTally"]


def __getattr__(name: str) -> Any:
    # `ConPET` loads torch; what only reads a workspace (reports, lists of modules) need not wait for it.
    if name != "ConPET":
        raise AttributeError(f"module 'conpet.workspace' has no attribute {name!r}")
    return import_module("conpet.workspace.facade").ConPET

"""The workspace: what a user creates, opens, teaches and asks."""

from conpet.workspace.facade import ConPET
from conpet.workspace.results import Candidate, Evaluation, LearnReport, Prediction, TaskTally

__all__ = ["Candidate", "ConPET", "Evaluation", "LearnReport", "Prediction", "TaskTally"]

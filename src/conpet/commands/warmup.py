"""The warm-up: before the first task is learned, the backbone itself is tuned on that task once."""

from __future__ import annotations

from conpet.artifact import Artifact
from conpet.context import TrainContext
from conpet.methods.base import Method, TaskData
from conpet.modules.folded import all_layers, folded_artifact, train_to_fold
from conpet.modules.folded_info import FOLDED, Producer
from conpet.modules.training import TrainingJob
from conpet.replay.memory import StoredExamples
from conpet.state.live import backbone_of
from conpet.state.state import State, TaskState


def is_due(method: Method, state: State) -> bool:
    """Return whether the next task learned needs a warm-up first."""
    return method.settings.backbone.warmup == "first-task" and not state.tasks and FOLDED not in state.shared


def warm_up(
    method: Method, state: State, task: TaskState, source: StoredExamples, context: TrainContext
) -> tuple[Method, State, Artifact]:
    """Train a module on all layers with a task, and fold it into the backbone.

    Args:
        method: The method over the backbone without warm-up.
        state: A state without tasks.
        task: The first task as the state will hold it; it has labels.
        source: Its examples.
        context: Costs (stage "warm-up"), seed, checkpoints, progress.

    Returns:
        The method over the new backbone, the state with the module in it, and the module.
    """
    base = method.backbone
    with context.costs.stage("warm-up"):
        whole = all_layers(base.loaded, base)
        data = TaskData.of(task, method.settings, source, whole)
        trained = train_to_fold(
            whole,
            TrainingJob.over_labels(data.train, data.classes, task.classes, data.settings, context.seed),
            checkpoint=context.scratch / Producer.WARM_UP if context.scratch else None,
            on_step=lambda done, steps: context.progress("warm-up", done / steps),
        )
        artifact = folded_artifact(trained, Producer.WARM_UP, [task.name], len(data.train))
        following = state.with_shared({FOLDED: artifact})
        backbone = backbone_of(base, following)
    return type(method)(backbone, method.settings), following, artifact

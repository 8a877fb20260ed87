"""The warm-up of a workspace: before its first task is learned, the backbone itself is tuned on it, once."""

from __future__ import annotations

from conpet.artifact import Artifact
from conpet.backbone.backbone import Backbone
from conpet.context import TrainContext
from conpet.methods.base import Method, TaskData
from conpet.modules.warmup import all_layers, train_warmup, warmed, warmup_artifact
from conpet.modules.warmup_info import WARMUP
from conpet.readable import Held
from conpet.replay.memory import StoredExamples
from conpet.state.state import State, TaskState


def due(learner: Method) -> bool:
    """Tell whether the next task is the one to warm up with."""
    return (
        learner.settings.backbone.warmup == "first-task"
        and not learner.state.tasks
        and WARMUP not in learner.state.shared
    )


def warm_up(learner: Method, task: TaskState, source: StoredExamples, context: TrainContext) -> tuple[Method, Artifact]:
    """Tune a module on all layers with a task; return the learner over the backbone it is folded into, and the module.

    Args:
        learner: A learner that has learned nothing.
        task: The first task, as it will be known.
        source: Its examples.
        work: Costs (stage "warm-up"), seed, checkpoints, progress.
    """
    base = learner.backbone
    with context.costs.stage("warm-up"):
        whole = all_layers(base.loaded, base)
        task_data = TaskData.of(task, learner.settings, source, whole)
        trained = train_warmup(
            whole,
            task_data.train,
            task_data.targets,
            task.labels,
            task_data.settings,
            context.seed,
            checkpoint=context.scratch / WARMUP if context.scratch else None,
            on_step=lambda done, steps: context.progress("warm-up", done / steps),
        )
        artifact = warmup_artifact(trained, task.name, task.labels)
        shared = {WARMUP: Held(artifact)}
        backbone = base.over(warmed(base.loaded, shared[WARMUP]))
    return type(learner)(backbone, learner.settings, State((), {**learner.state.shared, **shared})), artifact


def backbone_of(base: Backbone, state: State) -> Backbone:
    """Return the backbone of a state: the one given, or that with the workspace's warm-up folded in."""
    return base.over(warmed(base.loaded, state.shared[WARMUP])) if WARMUP in state.shared else base

"""The space that learning takes on the disk, estimated before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from conpet.backbone.backbone import Backbone
from conpet.config import Settings
from conpet.data import Task
from conpet.data.labelled import SUBSETS
from conpet.features.feature_map import FeatureMap
from conpet.methods import METHODS
from conpet.methods.base import Method
from conpet.modules.module import PetModule
from conpet.replay.memory_writer import retention_of
from conpet.store import Snapshot

_SUM_BYTES, _PARAMETER_BYTES, _FEATURE_BYTES = 8, 4, 2


def bytes_to_write(
    tasks: Sequence[Task], snapshot: Snapshot, backbone: Backbone, settings: Settings, *, together: bool = True
) -> int:
    """Return the bytes that learning tasks writes at least: modules, statistics and stored examples.

    What is hard to foresee (names, checkpoints, the database, training examples if memory is limited) is not counted,
    so that a change that fits is never refused.

    Args:
        tasks: The tasks.
        snapshot: The workspace before the change.
        backbone: Its backbone.
        settings: Its settings.
        together: Whether one change learns them all; otherwise each has a change, and the largest counts.
    """
    method: type[Method] = METHODS[settings.method.name]
    module = _module_size(tasks, snapshot, method, backbone, settings)

    def size(part: Sequence[Task]) -> int:
        modules = sum(not task.settings for task in part)  # one with settings of its own counts as nothing
        modules = modules if method.module_per_task else min(modules, 1)
        examples = sum(_example_bytes(task, backbone, settings) for task in part)
        return _statistics_bytes(part, method, backbone, settings) + examples + modules * module

    return size(tasks) if together else max(size([task]) for task in tasks)


def _statistics_bytes(tasks: Sequence[Task], method: type[Method], backbone: Backbone, settings: Settings) -> int:
    """Return the size of one Gram matrix, the sums of each label and the features of each training example."""
    feature_map = FeatureMap(backbone.feature_size, settings.features.projection, settings.seed, views=method.views)
    widths = [feature_map.width(view) for view in method.views]
    gram = sum(width * (width + 1) // 2 for width in widths)
    sums = sum(len(task.labels) for task in tasks) * sum(widths)
    features = sum(len(task.train) for task in tasks) * backbone.feature_size
    return (gram + sums) * _SUM_BYTES + features * _FEATURE_BYTES


def _module_size(
    tasks: Sequence[Task], snapshot: Snapshot, method: type[Method], backbone: Backbone, settings: Settings
) -> int:
    """Return the size of a module, in bytes."""
    if not method.tunes or all(task.settings for task in tasks):
        return 0
    known = [task.active.parameters for task in snapshot.tasks if task.active.parameters]
    return _PARAMETER_BYTES * (min(known, default=0) or _parameters(backbone, settings))


def _parameters(backbone: Backbone, settings: Settings) -> int:
    module = PetModule(backbone, settings.for_task({}), settings.seed)
    return sum(parameter.numel() for parameter in module.parameters.values())


def _example_bytes(task: Task, backbone: Backbone, settings: Settings) -> int:
    """Return the size of the stored examples of a task; training examples only if memory is unlimited."""
    subsets = SUBSETS if retention_of(settings).limits.unlimited else SUBSETS[1:]
    examples = [example for subset in subsets for example in getattr(task, subset)]
    if not settings.replay.latent_only:
        return sum(len(example.content.encode()) for example in examples)
    tokens = (min(need.tokens, backbone.max_tokens) for need in backbone.encoder.needs(examples, task.template))
    return sum(tokens) * backbone.hidden_size * backbone.dtype.itemsize

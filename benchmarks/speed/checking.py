"""Answers checked against plain PEFT: a module exported by conpet, loaded by PEFT, asked the same inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.speed.bench import Bench
from benchmarks.speed.rivals import exported_labels, exported_logits
from benchmarks.speed.timing import check_close, check_same
from conpet import ConPET
from conpet.data import Example, Kind
from conpet.methods.dynamic import DynamicMethod
from conpet.testing import live_of

CHECKED = 4
"""Inputs that are put to plain PEFT, one at a time."""


def same_answers(bench: Bench, workspace: ConPET, texts: Sequence[str], labels: Sequence[str], top_k: int = 1) -> str:
    """Check answers: each module by plain PEFT, and all labels by a method of its own, with nothing in memory.

    Args:
        bench: Where to export modules.
        workspace: Who answered.
        texts: The inputs.
        labels: What it answered.
        top_k: Number of modules each input was put to.

    Raises:
        UnequalError: Something is not the same.
    """
    live, some = live_of(workspace, **{"selector.top_k": top_k}), texts[:CHECKED]
    method, state = live.method, live.state
    assert isinstance(method, DynamicMethod)
    inputs = method.encode(state, [Example.of_text(text) for text in texts], Kind.TEXT, keep=False)
    scores = method.score(state, inputs, Kind.TEXT)
    said = check_same("labels", labels, [state.classes[column] for column in scores.classes.argmax(1).tolist()])
    assert scores.selected is not None
    modules = method.modules(state)
    logits = modules.run(inputs, Kind.TEXT, modules.of_task[scores.selected])
    encoded, ours, theirs = workspace.backbone.encode([Example.of_text(text) for text in some]), [], []
    for row, one in enumerate(encoded):
        for task in scores.selected[row].tolist():
            known = state.tasks[task]
            folder = workspace.export(known.name, bench.scratch("exported"))
            ours.append(logits[row, state.owner == task])
            plain = exported_logits(workspace.backbone, folder, one)
            theirs.append(plain[[exported_labels(folder).index(label) for label in known.labels]])
    close = check_close(
        f"logits of {len(theirs)} answers by PEFT",
        torch.cat(ours),
        torch.cat(theirs),
        bench.tolerance(workspace.backbone),
    )
    return f"{said}; {close}"

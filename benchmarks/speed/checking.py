"""Check predictions against plain PEFT: modules exported by conpet, loaded by PEFT, on the same inputs."""

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
"""Number of inputs checked with plain PEFT, one at a time."""


def same_answers(bench: Bench, workspace: ConPET, texts: Sequence[str], labels: Sequence[str], top_k: int = 1) -> str:
    """Check predictions: each module with plain PEFT, and all labels with a new method without cached results.

    Args:
        bench: The environment; modules are exported into it.
        workspace: The workspace that predicted.
        texts: The inputs.
        labels: The predicted labels.
        top_k: Number of modules run per input.

    Raises:
        UnequalError: A result differs.
    """
    live, checked = live_of(workspace, **{"selector.top_k": top_k}), texts[:CHECKED]
    method, state = live.method, live.state.refitted
    assert isinstance(method, DynamicMethod)
    inputs = method.encode(state, [Example.of_text(text) for text in texts], Kind.TEXT, keep=False)
    scores = method.score(state, inputs, Kind.TEXT)
    same = check_same("labels", labels, [state.classes[column] for column in scores.classes.argmax(1).tolist()])
    assert scores.selected is not None
    modules = method.modules(state)
    logits = modules.run(inputs, Kind.TEXT, modules.of_task[scores.selected])
    encoded, ours, theirs = workspace.backbone.encode([Example.of_text(text) for text in checked]), [], []
    for row, example in enumerate(encoded):
        for task in scores.selected[row].tolist():
            known = state.tasks[task]
            folder = workspace.export(known.name, bench.scratch("exported"))
            ours.append(logits[row, state.owner == task])
            plain = exported_logits(workspace.backbone, folder, example)
            theirs.append(plain[[exported_labels(folder).index(label) for label in known.labels]])
    close = check_close(
        f"logits of {len(theirs)} predictions, computed with PEFT",
        torch.cat(ours),
        torch.cat(theirs),
        bench.tolerance(workspace.backbone),
    )
    return f"{same}; {close}"

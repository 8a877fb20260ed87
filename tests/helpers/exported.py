"""The script of an exported module, and the logits it must give."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import torch

from conpet import ConPET, Example
from conpet.modules.module import StoredModule
from conpet.modules.pool import ModulePool
from conpet.state.slots import module_of
from conpet.testing import live_of


def script_of(folder: Path) -> ModuleType:
    """Run the script of an exported folder; it does not import conpet."""
    path = folder / "logits.py"
    assert "import conpet" not in path.read_text(encoding="utf-8")
    module = ModuleType("exported_logits")
    module.__file__ = str(path)
    SourceFileLoader(module.__name__, str(path)).exec_module(module)
    return module


def examples_of(texts: Sequence[str]) -> list[Example]:
    return [Example.of_text(text) for text in texts]


def logits_of(learner: ConPET, task: int, examples: Sequence[Example]) -> list[torch.Tensor]:
    """Return conpet's logits of a task's labels for each input, of which the last is too long."""
    live = live_of(learner)
    state = live.state.tasks[task]
    module = StoredModule.of(module_of(state.objects, live.state.shared))
    states = live.method.backbone.states(examples, state.template, keep=False)
    assert states.encoded[-1].cut > 0
    return [found[module] for found in ModulePool(live.method.backbone).outputs(states, [[module]] * len(examples))]

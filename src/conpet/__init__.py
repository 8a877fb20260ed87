"""conpet: continual task learning on one frozen language model (ConPET, Song et al. 2023)."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conpet.api import ConPET
    from conpet.client import AsyncClient, Client
    from conpet.commands.check_data import check_data
    from conpet.comparison import compare_learners
    from conpet.config import Settings
    from conpet.data import (
        Example,
        Examples,
        Span,
        Task,
        TaskStream,
        read_examples,
        read_inputs,
        read_mixed,
        read_stream,
        read_task,
    )
    from conpet.errors import ConpetError
    from conpet.plugins import register
    from conpet.report.comparison import ComparisonReport
    from conpet.report.data_check import DataCheckReport
    from conpet.report.design import TuneReport
    from conpet.types import Evaluation, LearnReport, Prediction

# OpenMP threads that spin long while waiting lose whole time slices when another process needs a core: on two busy
# cores, a training step took five times as long. OpenMP reads this variable once, when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_EXPORTS = {
    "AsyncClient": "conpet.client",
    "Client": "conpet.client",
    "ComparisonReport": "conpet.report.comparison",
    "ConPET": "conpet.api",
    "ConpetError": "conpet.errors",
    "DataCheckReport": "conpet.report.data_check",
    "Evaluation": "conpet.types",
    "Example": "conpet.data",
    "Examples": "conpet.data",
    "LearnReport": "conpet.types",
    "Prediction": "conpet.types",
    "Settings": "conpet.config",
    "Span": "conpet.data",
    "Task": "conpet.data",
    "TaskStream": "conpet.data",
    "TuneReport": "conpet.report.design",
    "check_data": "conpet.commands.check_data",
    "compare_learners": "conpet.comparison",
    "read_examples": "conpet.data",
    "read_inputs": "conpet.data",
    "read_mixed": "conpet.data",
    "read_stream": "conpet.data",
    "read_task": "conpet.data",
    "register": "conpet.plugins",
}
"""Modules of the public names, imported on first use so that `import conpet` is fast."""

__all__ = [
    "AsyncClient",
    "Client",
    "ComparisonReport",
    "ConPET",
    "ConpetError",
    "DataCheckReport",
    "Evaluation",
    "Example",
    "Examples",
    "LearnReport",
    "Prediction",
    "Settings",
    "Span",
    "Task",
    "TaskStream",
    "TuneReport",
    "check_data",
    "compare_learners",
    "read_examples",
    "read_inputs",
    "read_mixed",
    "read_stream",
    "read_task",
    "register",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'conpet' has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value

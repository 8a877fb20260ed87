"""Examples, tasks and task streams, readers for files, and templates."""

from conpet.data.checks import Located, check_example
from conpet.data.example import Example, Kind, Span
from conpet.data.readers import (
    count_inputs,
    read_examples,
    read_input_rows,
    read_inputs,
    read_mixed,
    read_stream,
    read_task,
)
from conpet.data.rows import Input
from conpet.data.task import Examples, MixedExamples, Task, TaskStream, check_task
from conpet.data.templates import Piece, PieceRole, Rendered, Style, check_template, default_template, render
from conpet.data.truncation import Fitted, Need, TokenPiece, fit

__all__ = [
    "Example",
    "Examples",
    "Fitted",
    "Input",
    "Kind",
    "Located",
    "MixedExamples",
    "Need",
    "Piece",
    "PieceRole",
    "Rendered",
    "Span",
    "Style",
    "Task",
    "TaskStream",
    "TokenPiece",
    "check_example",
    "check_task",
    "check_template",
    "count_inputs",
    "default_template",
    "fit",
    "read_examples",
    "read_input_rows",
    "read_inputs",
    "read_mixed",
    "read_stream",
    "read_task",
    "render",
]

"""The lower bound: one module tuned on one task after another, nothing replayed."""

from __future__ import annotations

from typing import ClassVar

from conpet.methods.static import StaticMethod


class SequentialMethod(StaticMethod):
    """Sequential tuning of one PET module without replay, the "PET-only" baseline of Song et al. 2023.

    Minimises the cross-entropy over all labels seen, on new examples only: what it forgets is what the other static
    methods are there to keep. Stored: the module and head. Comparable with all that tune under the same budget.
    """

    name = "sequential"
    replays: ClassVar[bool] = False
    sections: ClassVar[frozenset[str]] = StaticMethod.sections - {"replay"}

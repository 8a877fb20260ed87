"""Sequential tuning, the lower bound: one module trained on one task after another, without replay."""

from __future__ import annotations

from typing import ClassVar

from conpet.methods.static import StaticMethod


class SequentialMethod(StaticMethod):
    """Sequential tuning of one PET module without replay, the "PET-only" baseline of Song et al. 2023.

    Minimises the cross-entropy over all labels seen, on new examples only, so it shows the forgetting that the other
    static methods reduce. Stored: the module and the head. Comparable with all methods that train in the same budget.
    """

    name = "sequential"
    replays: ClassVar[bool] = False
    sections: ClassVar[frozenset[str]] = StaticMethod.sections - {"replay"}

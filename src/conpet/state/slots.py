"""Names of the objects a workspace stores, and which object a version's module is; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from conpet.artifact import Artifact, ObjectReader

MODULE = "module"
"""Slot of a task version for its module and statistics, which belong to one backbone.

A consolidation replaces those of active versions and empties the slot of the others."""

ASSIGNMENT = "assignment"
"""Slot of a task version that uses a shared PET module. Its document names the shared slot, and the labels of the
version that have another name in the module's head."""

MEMORY = "memory"
"""Slot of a task version for its examples; the state does not contain it."""

ANSWERS = "answers"
"""Shared slot of the answers to the test examples after the last change; the state does not contain it."""

HELD_OUT = "held_out"
"""Shared slot of the present answers to held-out examples, which the gate compares with; the state does not contain
it."""

STATIC = "static"
"""Shared slot of the module of static methods, which have one for all tasks."""

CONSOLIDATED = "consolidated"
"""Shared slot of the module that a consolidation of a dynamic workspace trains for all labels."""

CONSOLIDATION = "consolidation"
"""Shared slot of the record of a consolidation that left the backbone as it is, and stem of its document."""

STATISTICS = "statistics"
"""Shared slot of the Gram matrix, and its stem there; also the name of a state's fitted statistics."""

LOGISTIC = "logistic"
"""Shared slot of the logistic regression's weights, and stem of the document with its labels by kind of input."""

REFIT = "refit"
"""Shared slot of the weights of the logistic regression trained on validation examples, too (`State.refitted`)."""

REFUSAL = "refusal"
"""Shared slot of what decisions are calibrated on, and stem of its document; also the name of a state's fit."""

SLOT = "slot"
NAMES = "names"
"""Keys of the document of an assignment."""


def assignment_artifact(slot: str, names: Mapping[str, str] | None = None) -> Artifact:
    """Return the assignment of a task version to the module in a shared slot.

    Args:
        slot: The shared slot.
        names: Label to its name in the module's head, for labels that were renamed after the module was frozen.
    """
    return Artifact(documents={ASSIGNMENT: {SLOT: slot, NAMES: dict(names or {})}})


def shared_slot_of(objects: Mapping[str, ObjectReader]) -> str | None:
    """Return the shared slot of the module of a version with these objects; None if it has its own module."""
    return str(objects[ASSIGNMENT].document(ASSIGNMENT)[SLOT]) if ASSIGNMENT in objects else None


def module_of(objects: Mapping[str, ObjectReader], shared: Mapping[str, ObjectReader]) -> ObjectReader:
    """Return the object of the module, own or shared, of a version with these objects."""
    slot = shared_slot_of(objects)
    return objects[MODULE] if slot is None else shared[slot]

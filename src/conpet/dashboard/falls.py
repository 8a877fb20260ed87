"""What has got worse by a change that the gate refused, in words."""

from __future__ import annotations

from collections.abc import Mapping

from conpet.dashboard.visit import Visit
from conpet.evaluation.gate import Level


def fallen(visit: Visit, numbers: Mapping[Level, int]) -> str:
    """Return how many labels and tasks fall, and whether all together do.

    Args:
        visit: The request.
        numbers: Numbers by level, as in `GateReport.fell`.
    """
    parts = []
    if number := numbers.get(Level.LABEL):
        parts.append(visit.ngettext("%(num)s label", "%(num)s labels", number))
    if number := numbers.get(Level.TASK):
        parts.append(visit.ngettext("%(num)s task", "%(num)s tasks", number))
    if numbers.get(Level.WHOLE):
        parts.append(visit.gettext("all earlier labels together"))
    return ", ".join(parts)

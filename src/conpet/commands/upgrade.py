"""Continue a static workspace with a module for each new task."""

from __future__ import annotations

from conpet.commands.base import Transaction
from conpet.commands.checks import upgraded_settings
from conpet.methods.dynamic import DynamicMethod
from conpet.methods.static import StaticMethod
from conpet.state.state import ASSIGNMENT
from conpet.store import SideObject
from conpet.types import Evaluation


def upgrade(tx: Transaction, method: str, fusion: str, selector: str | None) -> Evaluation | None:
    """Freeze a static method's module and continue with new ones; see `ConPET.upgrade`."""
    settings, static = upgraded_settings(tx.snapshot, method, fusion, selector), tx.method
    assert isinstance(static, StaticMethod), "only such a workspace can be upgraded"  # noqa: S101
    tx.method = dynamic = DynamicMethod(static.backbone, settings)
    frozen = static.freeze(tx.state)
    state = tx.state.with_shared(frozen)
    calibration = dynamic.calibrate(state, tx.context())
    state = state.with_shared(calibration.shared)
    evaluation = tx.evaluate(state)
    # The module that served versions not in use is gone: it was trained further.
    older = [version for version in tx.snapshot.versions if not version.active]
    tx.commit(
        state,
        evaluation,
        "upgrade",
        side_objects=tuple(SideObject(one.task, one.number, ASSIGNMENT, None) for one in older),
        shared={**frozen, **calibration.shared},
        settings=settings.to_json(),
        detail={
            "from": static.name,
            "to": method,
            "fusion": settings.fusion.name,
            "selector": settings.selector.name,
        },
    )
    return evaluation

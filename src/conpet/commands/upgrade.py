"""Upgrade a static workspace to dynamic: each new task gets its own module."""

from __future__ import annotations

from conpet.commands.base import Transaction
from conpet.commands.checks import upgraded_settings
from conpet.methods.dynamic import DynamicMethod
from conpet.methods.static import StaticMethod
from conpet.state.slots import ASSIGNMENT
from conpet.store import SideObject
from conpet.types import Evaluation


def upgrade(tx: Transaction, method: str, fusion: str, selector: str | None) -> Evaluation | None:
    """Freeze the module of a static workspace and change its method to dynamic; see `ConPET.upgrade`."""
    settings, static = upgraded_settings(tx.snapshot, method, fusion, selector), tx.method
    assert isinstance(static, StaticMethod), "`upgraded_settings` refuses other methods"  # noqa: S101
    tx.method = dynamic = DynamicMethod(static.backbone, settings)
    frozen = static.freeze(tx.state)
    state = tx.state.with_shared(frozen)
    calibration = dynamic.calibrate(state, tx.context())
    state = state.with_shared(calibration.shared)
    evaluation = tx.evaluate(state)
    # The module of inactive versions does not exist any more, because it was trained further.
    older = [version for version in tx.snapshot.versions if not version.active]
    tx.commit(
        state,
        evaluation,
        "upgrade",
        side_objects=tuple(SideObject(version.task, version.number, ASSIGNMENT, None) for version in older),
        shared={**frozen, **calibration.shared},
        settings=settings.to_json(),
        detail={
            "from": static.name,
            "to": method,
            "fusion": settings.fusion.name,
            "selector": settings.selector.name,
        },
    )
    return tx.measured(evaluation)

"""Set what mistakes cost, or the coverage wanted, and show what decisions rest on; imports no torch."""

from __future__ import annotations

from typing import Any

from conpet.config import RefusalConfig, Settings
from conpet.errors import ConfigError
from conpet.evaluation.history import COSTS
from conpet.refusal.calibration import Calibration, doubt, needed_examples, no_coverage
from conpet.state.slots import REFUSAL
from conpet.store import Change, Store
from conpet.types import CheckedKind, Costs

_COSTS = ("error", "question", "refusal")


def set_costs(store: Store, wait_seconds: float | None = None, **given: float | None) -> Costs:
    """Store costs or a coverage; see `ConPET.set_costs`.

    Raises:
        ConfigError: Nothing is given, costs and a coverage are given together, or a value is out of range.
    """
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    costs = [name for name in _COSTS if name in changes]
    if not changes:
        raise ConfigError("give what an error, a question or a refusal costs, a coverage, or a share of unknown inputs")
    if costs and "coverage" in changes:
        raise ConfigError(f"give either costs ({', '.join(costs)}) or a coverage: a coverage takes the place of costs")
    if costs:
        changes["coverage"] = None
    with store.write(COSTS, wait_seconds) as writer:
        settings = Settings.parse(store.header().settings).changed({"refusal": changes})
        writer.commit(Change(COSTS, settings=settings.to_json(), detail={"refusal": settings.refusal.model_dump()}))
    return shown_costs(store)


def shown_costs(store: Store) -> Costs:
    """Return the costs of a workspace, and what its decisions rest on."""
    with store.snapshot() as snapshot:
        config = Settings.parse(snapshot.header.settings).refusal
        stored = snapshot.shared.get(REFUSAL)
        calibration = Calibration() if stored is None else Calibration.from_json(stored.document(REFUSAL))
        labels: dict[str, list[str]] = {}
        for task in snapshot.tasks:
            labels.setdefault(str(task.active.description["kind"]), []).extend(task.active.labels)
    kinds = tuple(_checked(kind, names, calibration, config) for kind, names in sorted(labels.items()))
    return Costs(config.error, config.question, config.refusal, config.coverage, config.unknown_share, kinds)


def _checked(kind: str, labels: list[str], calibration: Calibration, config: RefusalConfig) -> CheckedKind:
    fitted = calibration.kinds.get(kind)
    note: str | None = None
    if fitted is None:
        note = "nothing is promised: the decisions are not calibrated yet; the next change to a task calibrates them"
        return CheckedKind(kind, 0, 0, 0, note)
    if config.coverage is None:
        return CheckedKind(kind, fitted.known, fitted.unknown, fitted.answered, doubt(fitted))
    thresholds = calibration.thresholds(labels, config.coverage)
    needed = needed_examples(config.coverage)
    if not thresholds.pooled:
        note = no_coverage(config.coverage, fitted.answered, "decide")
    left = tuple(sorted(set(labels) - set(thresholds.promised)))
    return CheckedKind(kind, fitted.known, fitted.unknown, fitted.answered, note, needed, left)

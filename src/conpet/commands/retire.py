"""Retire a label."""

from __future__ import annotations

from conpet.commands.base import Transaction
from conpet.commands.checks import owner_of
from conpet.commands.relabel import relabel_task
from conpet.errors import ConfigError
from conpet.types import LearnReport


def retire(tx: Transaction, label: str) -> LearnReport:
    """Remove a label with its examples; see `ConPET.retire`."""
    record = owner_of(tx.snapshot, label)
    if len(record.active.labels) == 1:
        raise ConfigError(
            f"label {label!r} is the last of task {record.name!r}; remove the task (`conpet modules remove`)"
        )
    return relabel_task(tx, "retire", record.active, {label: None})

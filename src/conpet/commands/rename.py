"""Rename a label."""

from __future__ import annotations

from conpet.commands.base import Transaction
from conpet.commands.checks import check_new_label, owner_of
from conpet.commands.relabel import relabel_task
from conpet.errors import ConfigError
from conpet.types import LearnReport


def rename(tx: Transaction, old: str, new: str) -> LearnReport:
    """Give a label another name; see `ConPET.rename`."""
    record = owner_of(tx.snapshot, old)
    if new == old:
        raise ConfigError(f"label {old!r} has this name already; give another one. Nothing was changed")
    check_new_label(tx.snapshot, new)
    return relabel_task(tx, "rename", record.active, {old: new})

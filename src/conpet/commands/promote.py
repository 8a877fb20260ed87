"""Make a change that the gate refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conpet.commands.base import Transaction
from conpet.commands.candidates import newest, refusal, report_of
from conpet.evaluation.gate import GateReport


def promote(tx: Transaction, number: int | None, settings: Mapping[str, Any], *, judge: bool) -> GateReport:
    """Make the change of a candidate; see `ConPET.promote`."""
    number = newest(tx.store) if number is None else number
    report = report_of(tx.store, number, settings)
    if judge and report.refused:
        raise refusal(report, number, tx.store.path, f"It stays candidate {number}")
    about = {**report.summary(), **({"settings": dict(settings)} if settings else {})}
    tx.promote(tx.store.candidate(number), about | ({} if judge else {"verdict": "off"}))
    return report

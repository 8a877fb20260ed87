"""The workspace on disk: all versions of all tasks, shared objects and history. Every change is atomic."""

from conpet.artifact import Artifact, ArtifactReader, load_checkpoint, save_checkpoint
from conpet.store.actions import Action, ActionLog
from conpet.store.candidates import CandidateChange
from conpet.store.change import Change, NewVersion, SideObject
from conpet.store.ledger import CostKind, CostSource, Ledger, LedgerEntry
from conpet.store.records import (
    MODULE,
    Cost,
    EventRecord,
    EventSummary,
    Header,
    Metric,
    Reference,
    Snapshot,
    TaskRecord,
    VersionRecord,
)
from conpet.store.schema import SCHEMA_VERSION
from conpet.store.store import Store
from conpet.store.writer import Writer

__all__ = [
    "MODULE",
    "SCHEMA_VERSION",
    "Action",
    "ActionLog",
    "Artifact",
    "ArtifactReader",
    "CandidateChange",
    "Change",
    "Cost",
    "CostKind",
    "CostSource",
    "EventRecord",
    "EventSummary",
    "Header",
    "Ledger",
    "LedgerEntry",
    "Metric",
    "NewVersion",
    "Reference",
    "SideObject",
    "Snapshot",
    "Store",
    "TaskRecord",
    "VersionRecord",
    "Writer",
    "load_checkpoint",
    "save_checkpoint",
]

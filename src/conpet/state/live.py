"""The learner of a workspace's present state, kept up to date as this or another process changes it."""

from __future__ import annotations

import threading

from conpet.backbone.backbone import Backbone, Loaded
from conpet.backbone.cache import StateCache
from conpet.backbone.load import load_backbone
from conpet.backbone.pooling import Pooling
from conpet.commands.warmup import backbone_of
from conpet.config import Settings
from conpet.home import conpet_home
from conpet.methods import METHODS
from conpet.methods.base import Method
from conpet.modules.warmup_info import WARMUP
from conpet.state.reading import state_of
from conpet.state.state import State
from conpet.store import Snapshot, Store

CACHE_BYTES = 4 << 30
"""Limit of the state cache on disk, shared by all workspaces."""


def state_cache() -> StateCache:
    """Return the state cache that all workspaces under `CONPET_HOME` share."""
    return StateCache(conpet_home() / "states.sqlite", limit_bytes=CACHE_BYTES)


def cut_backbone(loaded: Loaded, settings: Settings, cache: StateCache | None = None) -> Backbone:
    """Return a loaded model cut as the settings say."""
    return Backbone(
        loaded,
        frozen_layers=settings.backbone.frozen_layers,
        feature_layers=settings.features.layers,
        max_tokens=settings.backbone.max_tokens,
        pooling=Pooling(settings.features.pooling),
        cache=cache,
    )


class LiveState:
    """Holds one learner and moves it on with the workspace; safe for threads.

    Args:
        store: The workspace's store.
        settings: Its settings as last seen.
        backbone: Name or folder of the backbone.
        device: A torch device, or "auto".

    Attributes:
        settings: The workspace's settings as last seen.
    """

    def __init__(self, store: Store, settings: Settings, backbone: str, device: str) -> None:
        self.settings = settings
        self._store = store
        self._backbone = backbone
        self._device = device
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._learner: Method | None = None
        self._loaded: Loaded | None = None
        self._base: Backbone | None = None

    def learner(self) -> Method:
        """Return the learner of the workspace's present state, also if another process has changed it."""
        return self.now()[0]

    def now(self) -> tuple[Method, Snapshot]:
        """Return that learner with the snapshot of its state."""
        with self._lock:
            snapshot = self._snapshot
        if snapshot is None or snapshot.generation != self._store.generation():
            snapshot = self._store.snapshot()
        return self.at(snapshot)

    def at(self, snapshot: Snapshot) -> tuple[Method, Snapshot]:
        """Return the learner of a snapshot, or of a later one that was seen already, with that snapshot."""
        with self._lock:
            if self._learner is not None and self._snapshot and self._snapshot.generation >= snapshot.generation:
                return self._learner, self._snapshot
            state, settings = state_of(snapshot), Settings.parse(snapshot.header.settings)
            if self._learner is not None and settings == self.settings and not _warmed_since(self._learner, state):
                self._learner = self._learner.with_state(state)
            else:  # the first time, or changed since, perhaps by another process
                if settings != self.settings:
                    self.settings, self._base = settings, None
                learner: type[Method] = METHODS[settings.method.name]
                self._learner = learner(backbone_of(self._unwarmed(), state), settings, state)
            self._snapshot = snapshot
            return self._learner, snapshot

    def _unwarmed(self) -> Backbone:
        """Return the backbone as it came from disk, cut as the settings say; one with a warm-up shares its counters."""
        if self._loaded is None:
            self._loaded = load_backbone(self._backbone, dtype=self.settings.backbone.dtype, device=self._device)
        if self._base is None:
            self._base = cut_backbone(
                self._loaded, self.settings, state_cache() if self.settings.backbone.cache else None
            )
        return self._base


def _warmed_since(learner: Method, state: State) -> bool:
    """Tell whether the backbone of a state is another than a learner's."""
    return (WARMUP in state.shared) != (WARMUP in learner.state.shared)

"""The live state: the method and state of a workspace's present generation, behind one reference."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from conpet.backbone.backbone import Backbone, Loaded
from conpet.backbone.cache import StateCache
from conpet.backbone.load import load_backbone
from conpet.backbone.pooling import Pooling
from conpet.config import Settings
from conpet.home import conpet_home
from conpet.methods import METHODS
from conpet.methods.base import Method
from conpet.modules.warmup import warmed
from conpet.modules.warmup_info import WARMUP
from conpet.state.reading import MemoryKeys, committed, state_of
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


def warmed_backbone(base: Backbone, state: State) -> Backbone:
    """Return the backbone of a state: the one given, or one with the workspace's warm-up folded in."""
    return base.over(warmed(base.loaded, state.shared[WARMUP])) if WARMUP in state.shared else base


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """What answers: one generation of a workspace, and the method that knows how.

    Attributes:
        method: The method over the generation's backbone.
        state: The state.
        snapshot: The store as of this generation; as long as it is held, its objects stay on disk.
    """

    method: Method
    state: State
    snapshot: Snapshot

    @property
    def generation(self) -> int:
        """The generation."""
        return self.snapshot.generation


class LiveState:
    """Holds the live state of a workspace and replaces it when this or another process commits.

    Readers take one reference and never wait for a lock. A new generation is prepared beside them and put in by
    exchanging that reference: an answer comes from the former generation or from the new one, never from both.

    Args:
        store: The workspace's store.
        settings: Its settings as last seen.
        backbone: Name or folder of the backbone.
        device: A torch device, or "auto".
        wait_for_changes: Whether `now` waits until a generation that another process has committed is prepared. If not,
            it returns the former one meanwhile, and a thread of its own prepares the new one.
    """

    def __init__(
        self, store: Store, settings: Settings, backbone: str, device: str, *, wait_for_changes: bool = True
    ) -> None:
        self._store = store
        self._settings = settings
        self._backbone = backbone
        self._device = device
        self._wait = wait_for_changes
        self._preparing = threading.Lock()
        self._live: Live | None = None
        self._keys: MemoryKeys = {}
        self._loaded: Loaded | None = None
        self._base: Backbone | None = None

    @property
    def settings(self) -> Settings:
        """The workspace's settings, as last seen."""
        live = self._live
        return live.method.settings if live else self._settings

    def now(self) -> Live:
        """Return the live state; one that another process has committed is prepared first (see `wait_for_changes`)."""
        live = self._live
        if live is not None and live.generation == self._store.generation():
            return live
        if live is None or self._wait:
            return self.refresh()
        if self._preparing.acquire(blocking=False):
            threading.Thread(target=self._prepare_in_background, name="conpet-prepare", daemon=True).start()
        return live

    def refresh(self) -> Live:
        """Prepare the present generation in this thread, unless it is there already, and put it in."""
        with self._preparing:
            live = self._live
            if live is None or live.generation != self._store.generation():
                live = self._put(self._prepare(self._store.snapshot()))
            return live

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Keep others from preparing the generation that is being committed: its writer has it at hand."""
        with self._preparing:
            yield

    def install(self, method: Method, state: State, snapshot: Snapshot) -> Live:
        """Put in a state that was just committed by this object's own writer; nothing of it is read again.

        Call it inside `committing`.

        Args:
            method: The method over the state's backbone.
            state: The state, as it was before the commit.
            snapshot: The store after it.
        """
        following, self._keys = committed(state, snapshot, self._keys)
        return self._put(Live(method, following, snapshot))

    def reload(self, snapshot: Snapshot) -> Live:
        """Put in the state of a snapshot, read from the store. Call it inside `committing`."""
        return self._put(self._prepare(snapshot))

    def close(self) -> None:
        """Release the state, its modules and the backbone; what is asked next loads them again."""
        with self._preparing:
            self._live, self._loaded, self._base, self._keys = None, None, None, {}

    def _put(self, live: Live) -> Live:
        """Exchange the one reference, unless a later generation is there already."""
        present = self._live
        if present is None or present.generation <= live.generation:
            self._live = live
            return live
        return present

    def _prepare_in_background(self) -> None:
        try:
            live = self._prepare(self._store.snapshot())
            live.method.prepare(live.state)
            self._put(live)
        finally:
            self._preparing.release()

    def _prepare(self, snapshot: Snapshot) -> Live:
        """Build the live state of a snapshot; method and backbone are taken over where they are the same."""
        state, settings = state_of(snapshot, self._keys), Settings.parse(snapshot.header.settings)
        live = self._live
        if live is not None and settings == live.method.settings and _same_backbone(live.state, state):
            return Live(live.method, state, snapshot)
        cls: type[Method] = METHODS[settings.method.name]
        return Live(cls(warmed_backbone(self._cut(settings), state), settings), state, snapshot)

    def _cut(self, settings: Settings) -> Backbone:
        """Return the backbone as it came from disk, cut as the settings say; backbones with a warm-up share it."""
        if self._loaded is None:
            self._loaded = load_backbone(self._backbone, dtype=settings.backbone.dtype, device=self._device)
        if self._base is None or settings != self._settings:
            self._base = cut_backbone(self._loaded, settings, state_cache() if settings.backbone.cache else None)
            self._settings = settings
        return self._base


def _same_backbone(former: State, state: State) -> bool:
    """Tell whether two states of a workspace are over the same backbone."""
    return (WARMUP in former.shared) == (WARMUP in state.shared)

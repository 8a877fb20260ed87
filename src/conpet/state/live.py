"""The live state: method and state of the workspace's present generation, replaced by exchanging one reference."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from conpet.backbone.backbone import Backbone, Loaded
from conpet.backbone.cache import StateCache
from conpet.backbone.forks import use_model
from conpet.backbone.load import load_backbone
from conpet.backbone.pooling import Pooling
from conpet.config import Settings
from conpet.home import conpet_home
from conpet.methods import METHODS
from conpet.methods.base import Method
from conpet.modules.folded import folded
from conpet.modules.folded_info import FOLDED, FoldedNote
from conpet.state.reading import MemoryKeys, committed, state_of
from conpet.state.state import State
from conpet.store import Snapshot, Store

CACHE_BYTES = 4 << 30
"""Size limit, in bytes, of the state cache on disk that all workspaces share."""


def state_cache() -> StateCache:
    """Return the state cache that all workspaces under `CONPET_HOME` share."""
    return StateCache(conpet_home() / "states.sqlite", limit_bytes=CACHE_BYTES)


def cut_backbone(
    loaded: Loaded, settings: Settings, cache: StateCache | None = None, *, deterministic: bool | None = None
) -> Backbone:
    """Return a loaded model, cut according to the settings; `deterministic` overrides them."""
    return Backbone(
        loaded,
        frozen_layers=settings.backbone.frozen_layers,
        feature_layers=settings.features.layers,
        max_tokens=settings.backbone.max_tokens,
        pooling=Pooling(settings.features.pooling),
        cache=cache,
        deterministic=settings.backbone.deterministic if deterministic is None else deterministic,
    )


def backbone_of(base: Backbone, state: State) -> Backbone:
    """Return the backbone of a state: `base`, with the module of a warm-up or consolidation, if any, folded in."""
    return base.over(folded(base.loaded, state.shared[FOLDED])) if FOLDED in state.shared else base


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """One generation of a workspace, ready to predict.

    Attributes:
        method: The method over the generation's backbone.
        state: The state.
        snapshot: The store as of this generation; its objects stay on disk while it is referenced.
    """

    method: Method
    state: State
    snapshot: Snapshot

    @property
    def generation(self) -> int:
        """The generation."""
        return self.snapshot.generation

    def among(self, names: Collection[str]) -> Live:
        """Return the same generation, in which only these tasks may answer; errors as in `State.among`."""
        return replace(self, state=self.state.among(names))


class LiveState:
    """Holds the live state of a workspace and replaces it when this or another process commits.

    Readers take one reference and never wait for a lock. A new generation is prepared in parallel and takes over when
    that reference is exchanged: a prediction comes from the former generation or from the new one, never from both.

    Args:
        store: The workspace's store.
        settings: Its settings when last read.
        backbone: Name or folder of the backbone.
        device: A torch device, or "auto".
        deterministic: Overrides the setting `backbone.deterministic`; None keeps it.
        wait_for_changes: Whether `now` waits until a generation committed by another process is prepared. If not, it
            returns the former one while a background thread prepares the new one.
        loaded: The backbone's model, if it is loaded already.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        backbone: str,
        device: str,
        *,
        deterministic: bool | None = None,
        wait_for_changes: bool = True,
        loaded: Loaded | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._backbone = backbone
        self._device = device
        self._deterministic = deterministic
        self._wait = wait_for_changes
        self._preparing = threading.Lock()
        self._live: Live | None = None
        self._keys: MemoryKeys = {}
        self._loaded = loaded
        self._base: Backbone | None = None
        _renew_in_forks(self)

    @property
    def settings(self) -> Settings:
        """The workspace's settings when last read."""
        live = self._live
        return live.method.settings if live else self._settings

    def now(self) -> Live:
        """Return the live state, after preparing a generation committed by another process (see `wait_for_changes`).

        Raises:
            BackboneError: This process was forked from one that had used a model (see `conpet.backbone.forks`).
        """
        use_model()
        live = self._live
        if live is not None and live.generation == self._store.generation():
            return live
        if live is None or self._wait:
            return self.refresh()
        if self._preparing.acquire(blocking=False):
            threading.Thread(target=self._prepare_in_background, name="conpet-prepare", daemon=True).start()
        return live

    @property
    def latest(self) -> Live | None:
        """The generation that was made live last, without looking for a newer one; None before the first."""
        return self._live

    def refresh(self, warm: Callable[[Live], None] | None = None) -> Live:
        """Prepare the present generation in this thread, unless it is live already, and make it live.

        Args:
            warm: Called with the new generation before it is made live.
        """
        with self._preparing:
            live = self._live
            if live is None or live.generation != self._store.generation():
                live = self._prepare(self._store.snapshot())
                if warm is not None:
                    warm(live)
                live = self._put(live)
            return live

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Prevent other threads from preparing the generation being committed: the writer installs its own."""
        with self._preparing:
            yield

    def install(self, method: Method, state: State, snapshot: Snapshot) -> Live:
        """Make a state live that this process has just committed, without reading it from the store.

        Call it inside `committing`.

        Args:
            method: The method over the state's backbone.
            state: The state that was committed.
            snapshot: The store after the commit.
        """
        following, self._keys = committed(state, snapshot, self._keys)
        return self._put(Live(method, following, snapshot))

    def reload(self, snapshot: Snapshot) -> Live:
        """Read the state of a snapshot from the store and make it live. Call it inside `committing`."""
        return self._put(self._prepare(snapshot))

    def original_backbone(self) -> Backbone:
        """Return the backbone without a folded module, cut according to the settings of the live state."""
        settings = self.now().method.settings
        with self._preparing:
            return self._cut(settings)

    def prepare(self, snapshot: Snapshot) -> Live:
        """Return another generation ready to predict, without making it live."""
        with self._preparing:
            return self._prepare(snapshot)

    def close(self) -> None:
        """Release the state, its modules and the backbone; the next call loads them again."""
        with self._preparing:
            self._live, self._loaded, self._base, self._keys = None, None, None, {}

    def _put(self, live: Live) -> Live:
        """Exchange the reference, unless a later generation is live already."""
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
        """Build the live state of a snapshot; reuse method and backbone if they have not changed."""
        state, settings = state_of(snapshot, self._keys), Settings.parse(snapshot.header.settings)
        live = self._live
        if live is not None and settings == live.method.settings and _same_backbone(live.state, state):
            return Live(live.method, state, snapshot)
        cls: type[Method] = METHODS[settings.method.name]
        return Live(cls(backbone_of(self._cut(settings), state), settings), state, snapshot)

    def _cut(self, settings: Settings) -> Backbone:
        """Return the backbone without a folded module, cut according to the settings; loaded and cut once."""
        if self._loaded is None:
            self._loaded = load_backbone(self._backbone, dtype=settings.backbone.dtype, device=self._device)
        if self._base is None or settings != self._settings:
            cache = state_cache() if settings.backbone.cache else None
            self._base = cut_backbone(self._loaded, settings, cache, deterministic=self._deterministic)
            self._settings = settings
        return self._base


def _renew_in_forks(live: LiveState) -> None:
    """Drop what a forked child inherits, except the weights: another thread of the parent may hold its locks."""
    reference = weakref.ref(live)

    def renew() -> None:
        inherited = reference()
        if inherited is not None:
            inherited._preparing = threading.Lock()
            inherited._live, inherited._base, inherited._keys = None, None, {}

    os.register_at_fork(after_in_child=renew)


def _same_backbone(former: State, state: State) -> bool:
    """Return whether two states of a workspace use the same backbone."""
    return FoldedNote.among(former.shared) == FoldedNote.among(state.shared)

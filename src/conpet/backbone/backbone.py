"""The frozen language model: loaded once, cut into prefix and suffix, never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from conpet.backbone.cache import CachedState, StateCache
from conpet.backbone.cut import Cut, Prefix, Suffix
from conpet.backbone.depth import check_frozen_layers
from conpet.backbone.encode import Encoder
from conpet.backbone.features import FrozenFeatures
from conpet.backbone.fingerprint import Fingerprint
from conpet.backbone.frozen_linear import parameter_count, with_frozen_maps
from conpet.backbone.pooling import Pooling
from conpet.backbone.sample_texts import SAMPLE_TEXTS
from conpet.backbone.short_attention import use_short_attention
from conpet.backbone.states import (
    ALONE,
    ON_CPU,
    ON_GPU,
    Batch,
    Batching,
    DeferredStates,
    Encoded,
    States,
    pad_ids,
    spans_of,
)
from conpet.cost import meter
from conpet.data import Example, Style
from conpet.data.truncation import CutInputs
from conpet.errors import BackboneError, ConfigError

SAMPLE_TOKENS = 128
"""Longest sample text in tokens. Independent of `Backbone.max_tokens`, so that features do not depend on it."""

STATES_FORMAT = 5
"""Part of every cache key. Increase it when the computation of states or features changes: old entries then miss."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model as loaded from disk, before it is cut."""

    name: str
    model: nn.Module
    """Given as loaded; kept with faster linear maps where available (`with_frozen_maps`), which hold the only copy of
    their weights."""
    encoder: Encoder
    fingerprint: Fingerprint
    device: torch.device
    layouts: dict[int | None, tuple[str | None, bool]] = field(default_factory=dict, repr=False, compare=False)
    """`path` and `as_tuple` of verified cuts by `frozen_layers`; the same for other weights of this architecture."""

    def __post_init__(self) -> None:
        model = with_frozen_maps(self.model)
        if model is not self.model:
            use_short_attention(model)
            object.__setattr__(self, "model", model)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the frozen weights."""
        return next(self.model.parameters()).dtype


class Backbone:
    """A frozen model cut at layer `frozen_layers`; computes prefix states and caches them.

    Args:
        loaded: The model.
        frozen_layers: Number of layers in the prefix; None takes `default_frozen_layers`.
        feature_layers: Layers after which features are read; None takes `default_feature_layers`.
        max_tokens: Longest input, in tokens.
        pooling: How the last hidden states become a representation.
        cache: Cache of prefix states, or None.
        deterministic: Whether every example is computed in a pass of its own, so that its states do not depend on
            others.

    Raises:
        BackboneError: The model cannot be cut at that layer, or a feature layer does not exist.
        ConfigError: The model cannot read inputs of `max_tokens`.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        frozen_layers: int | None = None,
        feature_layers: tuple[int, ...] | None = None,
        max_tokens: int = 128,
        pooling: Pooling = Pooling.MARKED,
        cache: StateCache | None = None,
        deterministic: bool = False,
    ) -> None:
        self._loaded = loaded
        self.deterministic = deterministic
        self.cut = _verified_cut(loaded, frozen_layers)
        self.frozen_layers = default_frozen_layers(self.cut.layers) if frozen_layers is None else frozen_layers
        self.feature_layers = feature_layers or default_feature_layers(
            self.cut.layers, self.frozen_layers, loaded.encoder.style
        )
        self.max_tokens = max_tokens
        self.pooling = pooling
        self.cache = cache
        self._longest = longest_input(self.cut.model)
        self._check()
        self._depths = tuple(sorted({*self.feature_layers, *([self.frozen_layers] if self.frozen_layers else [])}))
        self._prefix: Prefix | _WholePrefix = self.cut.prefix(self._depths) if self._depths else _WholePrefix(self.cut)

    def _check(self) -> None:
        name, layers = self.name, self.cut.layers
        if self.cut.path is None and (self.frozen_layers or self.feature_layers):
            raise BackboneError(
                f"{name} ({type(self.cut.model).__name__}) cannot be cut into layers: use backbone.frozen_layers=0 and "
                "no features.layers"
            )
        check_frozen_layers(name, layers, self.frozen_layers)
        unknown = [layer for layer in self.feature_layers if not 1 <= layer <= layers]
        if unknown:
            raise BackboneError(f"{name} has {layers} layers; features.layers names {unknown[0]}: use 1 to {layers}")
        if self._longest is not None and self.max_tokens > self._longest:
            raise ConfigError(
                f"backbone.max_tokens={self.max_tokens}: {name} reads at most {self._longest} tokens; use "
                f"{self._longest} or less"
            )

    def over(self, loaded: Loaded) -> Backbone:
        """Return the same backbone over other weights of the same architecture; the cache is shared."""
        return self._with(loaded, self.frozen_layers)

    def recut(self, frozen_layers: int) -> Backbone:
        """Return the same model cut at another layer, with the same feature layers; the cache is shared."""
        return self._with(self._loaded, frozen_layers)

    def _with(self, loaded: Loaded, frozen_layers: int) -> Backbone:
        return Backbone(
            loaded,
            frozen_layers=frozen_layers,
            feature_layers=self.feature_layers or None,
            max_tokens=self.max_tokens,
            pooling=self.pooling,
            cache=self.cache,
            deterministic=self.deterministic,
        )

    @property
    def loaded(self) -> Loaded:
        """The model as loaded from disk."""
        return self._loaded

    @property
    def name(self) -> str:
        """The name under which it was loaded."""
        return self._loaded.name

    @property
    def fingerprint(self) -> Fingerprint:
        """Digests of the frozen weights, the tokenizer and the configuration."""
        return self._loaded.fingerprint

    @property
    def device(self) -> torch.device:
        """The device that computes."""
        return self._loaded.device

    @property
    def on_gpu(self) -> bool:
        """Whether an accelerator computes."""
        return self.device.type != "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the frozen weights and the prefix states."""
        return self._loaded.dtype

    @property
    def batching(self) -> Batching:
        """How examples are batched on this device."""
        batching = ON_GPU if self.on_gpu else ON_CPU
        return replace(ALONE if self.deterministic else batching, longest=self._longest)

    @property
    def encoder(self) -> Encoder:
        """Turns examples into token ids."""
        return self._loaded.encoder

    @property
    def hidden_size(self) -> int:
        """Width d of the hidden states."""
        config: Any = self.cut.model.config
        return int(config.hidden_size)

    @property
    def representation_size(self) -> int:
        """Width R of the representations that heads read."""
        return self.pooling.width(self.hidden_size)

    @property
    def feature_size(self) -> int:
        """Width F of the frozen features."""
        return self.hidden_size * max(1, len(self.feature_layers))

    @property
    def features_reach_last_layer(self) -> bool:
        """Whether the model is an encoder and the deepest features are those of its last layer."""
        return self.encoder.style is Style.MASKED and self.feature_layers[-1:] == (self.cut.layers,)

    @property
    def parameters(self) -> int:
        """Number of frozen parameters."""
        return parameter_count(self.cut.model)

    @property
    def suffix_share(self) -> float:
        """Share of the layers above the cut: the cost of a suffix pass relative to a full forward pass."""
        return 1.0 if not self.cut.layers else 1 - self.frozen_layers / self.cut.layers

    @property
    def prefix_share(self) -> float:
        """Share of the layers that the prefix runs: up to the cut or the highest feature layer."""
        return max(self._depths) / self.cut.layers if self._depths else 1.0

    def describe(self) -> dict[str, Any]:
        """Return the backbone's properties, JSON-ready."""
        return {
            "name": self.name,
            "architecture": type(self.cut.model).__name__,
            "style": str(self.encoder.style),
            "layers": self.cut.layers,
            "frozen_layers": self.frozen_layers,
            "feature_layers": list(self.feature_layers),
            "hidden_size": self.hidden_size,
            "pooling": str(self.pooling),
            "parameters": self.parameters,
            "dtype": str(self.dtype).removeprefix("torch."),
            "fingerprint": self.fingerprint.to_json(),
        }

    def cut_note(self, cut: CutInputs, what: str) -> str | None:
        """Return a sentence on inputs longer than `max_tokens`, or None if there are none; `what` is an input."""
        return cut.note(what, self.max_tokens, self._longest)

    def suffix(self) -> Suffix:
        """Return a new suffix that shares the frozen weights; PET layers can be inserted into it."""
        return self.cut.suffix(self.frozen_layers)

    def encode(self, examples: Sequence[Example], template: str | None = None) -> list[Encoded]:
        """Turn examples into token ids with a template (None: the default for their kind)."""
        return self.encoder.encode(examples, template, self.max_tokens)

    def unfit(self, examples: Sequence[Example], template: str | None = None) -> dict[int, str]:
        """Return why examples cannot be encoded with a template, by index."""
        return self.encoder.unfit(examples, template, self.max_tokens)

    def states(
        self,
        examples: Sequence[Example],
        template: str | None = None,
        *,
        keep: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> States:
        """Return the prefix states of examples, from the cache where possible.

        Args:
            examples: n examples.
            template: Template to use instead of the default.
            keep: Whether to read from and write to the cache. False never waits for the cache's lock.
            progress: Called with the number of examples finished since the last call.
        """
        encoded = self.encode(examples, template)
        cache = self.cache if keep else None
        keys: list[Any] = [self._key(one.ids, one.spans) for one in encoded] if cache is not None else list(encoded)
        rows: dict[Any, CachedState] = dict(cache.get_many(keys)) if cache is not None else {}
        missing = {key: example for key, example in zip(keys, encoded, strict=True) if key not in rows}
        cached = {key: len(example.ids) for key, example in zip(keys, encoded, strict=True) if key in rows}
        meter().cached_tokens += self.prefix_share * sum(cached.values())
        if progress:
            progress(len(encoded) - len(missing))
        for computed in self._compute(missing):
            rows |= computed
            if cache is not None:
                cache.put_many(computed.items())
            if progress:
                progress(len(computed))
        in_order = [rows[key] for key in keys]
        hidden = tuple(row.hidden for row in in_order) if self.frozen_layers else None
        features = (
            torch.stack([row.features for row in in_order])
            if in_order
            else torch.zeros(0, self.feature_size, dtype=torch.float32)
        )
        return States(tuple(encoded), hidden, features)

    def stored_states(
        self,
        places: Sequence[tuple[str, int] | None],
        read: Callable[[Sequence[int]], Sequence[Example]],
        template: str,
    ) -> States:
        """Return the prefix states of stored examples, which are read only as far as something asks for them.

        Features are cached by the place of an example, so that neither its text nor its hidden states have to be read
        to score it with classifiers.

        Args:
            places: The SHA-256 of the file that holds each example, and its row there; None for one without a file.
            read: Returns the examples at some indices.
            template: The template to use.
        """
        cache = self.cache
        keys = [self._key(template, self.max_tokens, place) if cache and place else None for place in places]
        known = cache.get_many([key for key in keys if key is not None]) if cache else {}
        missing = [index for index, key in enumerate(keys) if key not in known]
        costs = meter()
        costs.cache_lookups -= sum(keys[index] is not None for index in missing)  # looked up again, by their token ids
        computed = self.states(read(missing), template) if missing or not places else None
        rows: dict[int, CachedState] = {index: known[key] for index, key in enumerate(keys) if key in known}
        costs.cached_tokens += self.prefix_share * sum(row.hidden.shape[0] for row in rows.values())
        if computed is not None:
            for index, encoded, features in zip(missing, computed.encoded, computed.features, strict=True):
                # Its hidden states have no columns: only their number of tokens is kept, for the costs.
                rows[index] = CachedState(torch.empty(len(encoded.ids), 0, dtype=torch.float32), features)
            if cache:
                cache.put_many((key, rows[index]) for index in missing if (key := keys[index]) is not None)
            if len(missing) == len(places):
                return computed

        def read_whole(indices: Sequence[int]) -> States:
            meter().cached_tokens -= self.prefix_share * sum(rows[index].hidden.shape[0] for index in indices)
            return self.states(read(indices), template)  # counts their tokens again

        return DeferredStates(torch.stack([rows[index].features for index in range(len(places))]), read_whole)

    def batches(self, states: States) -> Iterator[tuple[list[int], Batch]]:
        """Yield the examples of `states` in batches on this device, each with the rows it holds."""
        for rows in self.batching.batches([len(example.ids) for example in states.encoded]):
            yield rows, self.collate(states, rows)

    def collate(self, states: States, rows: Sequence[int]) -> Batch:
        """Return these rows of `states` as a batch, in one of the shapes of `batching`, on this device."""
        shape = self.batching.shape([len(states.encoded[row].ids) for row in rows])
        return states.collate(rows, pad=self.encoder.pad, device=self.device, shape=shape)

    def _compute(self, missing: Mapping[Any, Encoded]) -> Iterator[dict[Any, CachedState]]:
        keys, encoded = list(missing), list(missing.values())
        for batch in self.batching.batches([len(example.ids) for example in encoded]):
            examples = [encoded[index] for index in batch]
            states, mask = self._forward(examples)
            meter().tokens += self.prefix_share * sum(len(example.ids) for example in examples)
            features = self._features(states, mask, spans_of(examples).to(self.device)).cpu()
            hidden = (
                states[self.frozen_layers].cpu()
                if self.frozen_layers
                else torch.zeros(len(examples), 0, 0, dtype=torch.float32)
            )
            yield {
                keys[index]: CachedState(hidden[row, : len(encoded[index].ids)].clone(), features[row].clone())
                for row, index in enumerate(batch)
            }

    def _forward(self, encoded: Sequence[Encoded]) -> tuple[Mapping[int, Tensor], Tensor]:
        """Return the states `[n, T, d]` after each recorded layer, by layer, and the mask `[n, T]`."""
        lengths = [len(example.ids) for example in encoded]
        ids, mask = pad_ids(encoded, self.encoder.pad, self.batching.shape(lengths))
        ids, mask = ids.to(self.device), mask.to(self.device)
        with torch.inference_mode():
            padded = sum(lengths) < ids.numel()
            states = self._prefix(ids, mask if padded else None)
            return {layer: values[: len(encoded)] for layer, values in states.items()}, mask[: len(encoded)]

    @cached_property
    def _features(self) -> FrozenFeatures:
        """Turns states into features. Computed on first use, because it needs a pass over the sample texts."""
        longest = self._longest or SAMPLE_TOKENS
        samples = [Example.of_text(text) for text in SAMPLE_TEXTS]
        texts = self.encoder.encode(samples, None, min(SAMPLE_TOKENS, longest))
        batches = self.batching.batches([len(text.ids) for text in texts])
        sample = [self._forward([texts[index] for index in batch]) for batch in batches]
        return FrozenFeatures.fitted(self.feature_layers or (0,), sample)

    def _key(self, *example: object) -> bytes:
        """Hash everything that the prefix states of an example depend on, given what identifies the example."""
        key = self._key_of_backbone.copy()
        key.update(repr(example).encode())
        return key.digest()

    @cached_property
    def _key_of_backbone(self) -> hashlib.blake2b:
        """The part of all keys that is the same for all examples."""
        parts = (
            STATES_FORMAT,
            self.fingerprint.digest,
            self.dtype,
            self.device.type,
            self.frozen_layers,
            self.feature_layers,
            self.deterministic,
        )
        return hashlib.blake2b(repr(parts).encode(), digest_size=20)

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which PET modules with float32 weights compute in the backbone's number format."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


class _WholePrefix:
    """Replaces the prefix of a model that cannot be cut: features come from its last layer."""

    def __init__(self, cut: Cut) -> None:
        self._suffix = cut.suffix(0)

    def __call__(self, ids: Tensor, mask: Tensor | None) -> dict[int, Tensor]:
        return {0: self._suffix(ids, mask, None)}


def _verified_cut(loaded: Loaded, frozen_layers: int | None) -> Cut:
    """Return the model's cut, verified once at the layer used; a model that fails counts as uncuttable."""
    if frozen_layers not in loaded.layouts:
        cut = Cut.of(loaded.model)
        chosen = default_frozen_layers(cut.layers) if frozen_layers is None else frozen_layers
        depth = chosen or cut.layers
        holds = not 1 <= depth <= cut.layers or cut.holds(depth)
        loaded.layouts[frozen_layers] = loaded.layouts[chosen] = (cut.path, cut.as_tuple) if holds else (None, False)
    return Cut(loaded.model, *loaded.layouts[frozen_layers])


def longest_input(model: nn.Module) -> int | None:
    """Return how many tokens a model can read, special tokens included; None if its configuration sets no limit."""
    config: Any = getattr(model, "config", None)
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    # RoBERTa and its relatives number positions from padding_idx + 1, so the first rows of the table are unused.
    unused = [
        module.padding_idx + 1
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.padding_idx is not None
    ]
    return positions - max(unused, default=0)


def default_frozen_layers(layers: int) -> int:
    """Return all layers but the top fifth (at least one layer stays above the cut); 0 for an uncuttable model."""
    return layers - max(1, round(layers / 5)) if layers else 0


def default_feature_layers(layers: int, frozen_layers: int, style: Style) -> tuple[int, ...]:
    """Return four depths, at 1/3, 2/3, 5/6 and all of the layers; none for a model that cannot be cut.

    Of an encoder they reach the last layer, whose states were trained to represent text. The last layers of a causal
    model predict the next token: its depths are those of the prefix, and cost nothing more. Chosen on validation
    examples (`benchmarks/choose_features.py`). A model with few layers repeats some.
    """
    if not layers:
        return ()
    top = (frozen_layers or layers) if style is Style.CAUSAL else layers
    return tuple(max(1, round(top * share)) for share in (1 / 3, 2 / 3, 5 / 6, 1))

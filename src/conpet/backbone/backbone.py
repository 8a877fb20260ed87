"""The frozen large language model: loaded once, cut in two, never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from conpet.backbone.cache import CachedState, StateCache
from conpet.backbone.cut import Cut, Prefix, Suffix
from conpet.backbone.encode import Encoder
from conpet.backbone.features import FrozenFeatures
from conpet.backbone.fingerprint import Fingerprint
from conpet.backbone.frozen_linear import with_frozen_maps
from conpet.backbone.pooling import Pooling
from conpet.backbone.sample_texts import SAMPLE_TEXTS
from conpet.backbone.states import ON_CPU, ON_GPU, Batching, Encoded, States, pad_ids, spans_of
from conpet.cost import meter
from conpet.data import Example
from conpet.errors import BackboneError, ConfigError

SAMPLE_TOKENS = 128
"""Longer sample texts are cut: a number of its own, because features must not depend on `Backbone.max_tokens`."""

STATES_FORMAT = 2
"""Raised whenever the same backbone gives other states or features than before, so that no cache gives the old ones."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model as it came from disk, before it is cut."""

    name: str
    model: nn.Module
    encoder: Encoder
    fingerprint: Fingerprint
    device: torch.device
    tree: nn.Module = field(init=False, repr=False, compare=False)
    """The model's tree over the same weights, with quicker maps where there are such (`with_frozen_maps`)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", with_frozen_maps(self.model))

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the frozen weights."""
        return next(self.model.parameters()).dtype


def check_frozen_layers(name: str, layers: int, frozen_layers: int) -> None:
    """Raise `BackboneError` unless a model of so many layers can be cut there."""
    if not 0 <= frozen_layers <= layers:
        raise BackboneError(
            f"{name} has {layers} layers, so backbone.frozen_layers={frozen_layers} is not possible: use 0 to {layers}"
        )


class Backbone:
    """A frozen model cut at layer `frozen_layers`; computes and keeps prefix states.

    Args:
        loaded: The model.
        frozen_layers: Number of layers of the prefix; None takes `default_frozen_layers`.
        feature_layers: Layers behind which features are taken; None takes `default_feature_layers`.
        max_tokens: Longest input, in tokens.
        pooling: How an example is represented.
        cache: Where prefix states are kept, or None.

    Raises:
        BackboneError: The model cannot be cut there, or has no such layer.
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
    ) -> None:
        self._loaded = loaded
        self.cut = _sound_cut(loaded.tree, frozen_layers)
        self.frozen_layers = default_frozen_layers(self.cut.layers) if frozen_layers is None else frozen_layers
        self.feature_layers = feature_layers or default_feature_layers(self.cut.layers, self.frozen_layers)
        self.max_tokens = max_tokens
        self.pooling = pooling
        self.cache = cache
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
        longest = longest_input(self.cut.model)
        if longest is not None and self.max_tokens > longest:
            raise ConfigError(f"max_tokens={self.max_tokens}: {name} reads at most {longest} tokens")

    def over(self, loaded: Loaded) -> Backbone:
        """Return a backbone over other weights of the same architecture, alike in all else; the cache is shared."""
        return self._changed(loaded, self.frozen_layers)

    def recut(self, frozen_layers: int) -> Backbone:
        """Return the same model cut at another layer; features stay where they are, the cache is shared."""
        return self._changed(self._loaded, frozen_layers)

    def _changed(self, loaded: Loaded, frozen_layers: int) -> Backbone:
        return Backbone(
            loaded,
            frozen_layers=frozen_layers,
            feature_layers=self.feature_layers or None,
            max_tokens=self.max_tokens,
            pooling=self.pooling,
            cache=self.cache,
        )

    @property
    def loaded(self) -> Loaded:
        """The model as it came from disk."""
        return self._loaded

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        return self._loaded.name

    @property
    def fingerprint(self) -> Fingerprint:
        """What identifies the frozen weights, the tokenizer and the configuration."""
        return self._loaded.fingerprint

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._loaded.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the frozen weights and the prefix states."""
        return self._loaded.dtype

    @property
    def batching(self) -> Batching:
        """How examples are put into batches on its device."""
        return ON_CPU if self.device.type == "cpu" else ON_GPU

    @property
    def encoder(self) -> Encoder:
        """What turns examples into token ids."""
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
    def parameters(self) -> int:
        """Number of frozen parameters."""
        return sum(parameter.numel() for parameter in self.cut.model.parameters())

    @property
    def suffix_share(self) -> float:
        """Share of the layers that lies above the cut: the cost of one suffix pass in forward passes."""
        return 1.0 if not self.cut.layers else 1 - self.frozen_layers / self.cut.layers

    @property
    def prefix_share(self) -> float:
        """Share of the layers the prefix passes: up to the cut, and to the last layer features are taken behind."""
        return max(self._depths) / self.cut.layers if self._depths else 1.0

    def describe(self) -> dict[str, Any]:
        """Return what is worth knowing of it, JSON-ready."""
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

    def suffix(self) -> Suffix:
        """Return a new suffix that shares the frozen weights; PET layers may be put into it."""
        return self.cut.suffix(self.frozen_layers)

    def encode(self, examples: Sequence[Example], template: str | None = None) -> list[Encoded]:
        """Turn examples into token ids by a template (None: the default one of their kind)."""
        return self.encoder.encode(examples, template, self.max_tokens)

    def states(
        self,
        examples: Sequence[Example],
        template: str | None = None,
        *,
        keep: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> States:
        """Return the prefix states of examples, from the cache where it has them.

        Args:
            examples: n examples.
            template: Template in place of the default one.
            keep: Whether the cache is asked for them, and keeps what is computed. Without it no lock is waited for.
            progress: Called with the number of examples done since the last call.
        """
        encoded = self.encode(examples, template)
        keys = [self._key(one) for one in encoded]
        cache = self.cache if keep else None
        rows: dict[bytes, CachedState] = dict(cache.get_many(keys)) if cache is not None else {}
        missing = {key: one for key, one in zip(keys, encoded, strict=True) if key not in rows}
        cached = {key: len(one.ids) for key, one in zip(keys, encoded, strict=True) if key in rows}
        meter().cached_tokens += self.prefix_share * sum(cached.values())
        if progress:
            progress(len(encoded) - len(missing))
        for done in self._compute(missing):
            rows |= done
            if cache is not None:
                cache.put_many(done.items())
            if progress:
                progress(len(done))
        found = [rows[key] for key in keys]
        hidden = tuple(row.hidden for row in found) if self.frozen_layers else None
        features = torch.stack([row.features for row in found]) if found else torch.zeros(0, self.feature_size)
        return States(tuple(encoded), hidden, features)

    def _compute(self, missing: Mapping[bytes, Encoded]) -> Iterator[dict[bytes, CachedState]]:
        keys, encoded = list(missing), list(missing.values())
        for batch in self.batching.batches([len(one.ids) for one in encoded]):
            some = [encoded[index] for index in batch]
            seen, mask = self._forward(some)
            meter().tokens += self.prefix_share * sum(len(one.ids) for one in some)
            features = self._features(seen, mask, spans_of(some).to(self.device)).cpu()
            hidden = seen[self.frozen_layers].cpu() if self.frozen_layers else torch.zeros(len(some), 0, 0)
            yield {
                keys[index]: CachedState(hidden[row, : len(encoded[index].ids)].clone(), features[row].clone())
                for row, index in enumerate(batch)
            }

    def _forward(self, encoded: Sequence[Encoded]) -> tuple[Mapping[int, Tensor], Tensor]:
        """Return the states `[n, T, d]` behind the layers recorded, and the mask `[n, T]`."""
        ids, mask = pad_ids(encoded, self.encoder.pad)
        ids, mask = ids.to(self.device), mask.to(self.device)
        with torch.inference_mode():
            padded = len({len(one.ids) for one in encoded}) > 1
            return self._prefix(ids, mask if padded else None), mask

    @cached_property
    def _features(self) -> FrozenFeatures:
        """What turns states into features. It takes a pass over the sample texts, so it waits until it is needed."""
        longest = longest_input(self.cut.model) or SAMPLE_TOKENS
        samples = [Example.of_text(text) for text in SAMPLE_TEXTS]
        texts = self.encoder.encode(samples, None, min(SAMPLE_TOKENS, longest))
        batches = self.batching.batches([len(one.ids) for one in texts])
        sample = [self._forward([texts[index] for index in batch]) for batch in batches]
        return FrozenFeatures.fitted(self.feature_layers or (0,), sample)

    def _key(self, encoded: Encoded) -> bytes:
        """Everything the prefix states of an example depend on."""
        parts = (
            STATES_FORMAT,
            self.fingerprint.digest,
            self.dtype,
            self.device.type,
            self.frozen_layers,
            self.feature_layers,
            encoded.ids,
            encoded.spans,
        )
        return hashlib.blake2b(repr(parts).encode(), digest_size=20).digest()

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which PET modules with float32 weights compute in the backbone's number format."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


class _WholePrefix:
    """Stands for the prefix of a model that cannot be cut: features come from its last layer."""

    def __init__(self, cut: Cut) -> None:
        self._suffix = cut.suffix(0)

    def __call__(self, ids: Tensor, mask: Tensor | None) -> dict[int, Tensor]:
        return {0: self._suffix(ids, mask, None)}


def _sound_cut(model: nn.Module, frozen_layers: int | None) -> Cut:
    """Return how a model is cut, proved where it is to be cut; one that fails the proof counts as uncuttable."""
    cut = Cut.of(model)
    depth = (default_frozen_layers(cut.layers) if frozen_layers is None else frozen_layers) or cut.layers
    if 1 <= depth <= cut.layers and not cut.holds(depth):
        return Cut(model, None)
    return cut


def longest_input(model: nn.Module) -> int | None:
    """Return how many tokens a model can read, special tokens included; None where nothing sets a bound."""
    config: Any = getattr(model, "config", None)
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    # RoBERTa and its kin count positions from behind the padding index, so their table is that much longer.
    unused = [
        module.padding_idx + 1
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.padding_idx is not None
    ]
    return positions - max(unused, default=0)


def default_frozen_layers(layers: int) -> int:
    """Cut below the top fifth of the layers, at least one."""
    return layers - max(1, round(layers / 5)) if layers else 0


def default_feature_layers(layers: int, frozen_layers: int) -> tuple[int, ...]:
    """Three depths spread over the prefix; none for a model that cannot be cut."""
    if not layers:
        return ()
    top = frozen_layers or layers
    return tuple(sorted({max(1, round(top * share)) for share in (1 / 3, 2 / 3, 1)}))

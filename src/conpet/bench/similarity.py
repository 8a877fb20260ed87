"""Similarity of labels, from the frozen features of their examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from conpet.backbone.load import load_backbone
from conpet.config import Settings
from conpet.data.labelled import LabelledData, by_label
from conpet.state.live import cut_backbone, state_cache

EXAMPLES = 20
"""Most training examples used per label."""


def label_vectors(
    data: LabelledData,
    backbone: str = "minilm-l6",
    *,
    device: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> dict[str, NDArray[Any]]:
    """Return for each label the mean `[F]` of the frozen features of at most `EXAMPLES` training examples.

    Args:
        data: The data.
        backbone: An embedded model, `tiny-random`, a folder in Hugging Face format, or a hub id.
        device: A torch device or "auto".
        progress: Called with the number of labels done since the last call.

    Raises:
        BackboneError: The model does not exist or cannot be used as a backbone.
    """
    settings = Settings.parse({"backbone": backbone})
    vectors = {}
    with state_cache() as cache:
        frozen = cut_backbone(load_backbone(backbone, dtype=settings.backbone.dtype, device=device), settings, cache)
        for label, examples in by_label(data.train, EXAMPLES).items():
            vectors[label] = frozen.states(examples).features.double().mean(0).numpy()
            if progress:
                progress(1)
    return vectors

"""The number of layers of a backbone, as far as it is known before loading; imports no torch."""

from __future__ import annotations

import json
from pathlib import Path

from conpet.backbone.catalog import EMBEDDED
from conpet.errors import BackboneError

_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
"""Names of the number of layers in the configurations of transformers."""


def known_layers(name: str) -> int | None:
    """Return the number of layers of an embedded model or of a model folder; None if it is not known."""
    return EMBEDDED[name].layers if name in EMBEDDED else count_layers(Path(name).expanduser())


def count_layers(folder: Path) -> int | None:
    """Return the number of layers in a model folder's configuration; None if it is not given."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None  # loading the model reports what is wrong with the folder
    given = (config.get(key) for key in _KEYS) if isinstance(config, dict) else ()
    return next((layers for layers in given if isinstance(layers, int)), None)


def check_frozen_layers(name: str, layers: int, frozen_layers: int) -> None:
    """Raise `BackboneError` unless `frozen_layers` is between 0 and `layers`."""
    if not 0 <= frozen_layers <= layers:
        raise BackboneError(
            f"{name} has {layers} layers, so backbone.frozen_layers={frozen_layers} is not possible: use 0 to {layers}"
        )

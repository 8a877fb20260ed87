"""(IA)3 with PEFT: trained vectors scale keys, values and inner feed-forward states (Liu et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from conpet.backbone.backbone import Backbone
from conpet.backbone.cut import Suffix
from conpet.config import ModuleConfig
from conpet.modules.adapter import Adapter, MapUpdate
from conpet.modules.kinds.base import (
    PREFIX,
    InjectedModule,
    ModuleKind,
    config_document,
    grouped_tensors,
    inject_with_peft,
    target_paths,
)
from conpet.modules.kinds.settings import Ia3Config
from conpet.modules.sublayers import find_sublayers

_VECTOR = ".ia3_l"


class Ia3(ModuleKind):
    """Trained vectors, initially ones, scale keys, values and the input of the last feed-forward map.

    With `targets`, they scale the named maps instead: the input of a map that ends a feed-forward sublayer, the output
    of any other. If one map computes query, key and value together, its whole output is scaled, as in PEFT.
    """

    name = "ia3"
    peft_type = "IA3"
    in_peft = True
    Config = Ia3Config

    def document(self, backbone: Backbone, config: ModuleConfig) -> dict[str, Any]:
        """Return PEFT's configuration; maps are named by full path, because PEFT's IA3 cannot select layers."""
        from peft import IA3Config

        assert isinstance(config, Ia3Config)  # noqa: S101 - see `Config`
        parts = find_sublayers(backbone, self.name)
        feed_forward = [part.feed_forward_out for part in parts]
        if config.targets == "all-linear":
            paths = [*(path for part in parts for path in part.keys_values), *feed_forward]
        else:
            paths = target_paths(backbone, config.targets)
        document = IA3Config(
            target_modules=sorted(paths),
            feedforward_modules=sorted(set(paths) & set(feed_forward)),
            task_type="FEATURE_EXTRACTION",
            inference_mode=True,
            base_model_name_or_path=backbone.name,
        )
        return config_document(document)

    def inject(
        self, backbone: Backbone, suffix: Suffix, document: Mapping[str, Any], generator: torch.Generator
    ) -> InjectedModule:
        """Inject the module with PEFT; the vectors are ones, so nothing is random."""
        from peft import PeftConfig

        return InjectedModule(inject_with_peft(PeftConfig.from_peft_type(**document), suffix, backbone.device))

    def updates(self, adapter: Adapter, bases: Mapping[str, nn.Linear]) -> Mapping[str, MapUpdate]:
        """Return the vector of each map, for its input or its output."""
        feed_forward = set(adapter.document["feedforward_modules"])
        return {
            path: _update(tensors[_VECTOR], on_input=path in feed_forward)
            for path, tensors in grouped_tensors(adapter.tensors, (_VECTOR,), bases, PREFIX).items()
        }


def _update(vector: Tensor, *, on_input: bool) -> MapUpdate:
    row = vector.reshape(1, -1)
    return MapUpdate(scale_in=row) if on_input else MapUpdate(scale_out=row)

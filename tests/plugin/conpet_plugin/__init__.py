"""One component of each kind, each with settings of its own, as a user of conpet would write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from conpet.config import FusionConfig, HeadConfig, MethodConfig, ModuleConfig, ScheduleConfig, SelectorConfig
from conpet.data.files import RawRow
from conpet.errors import Problem
from conpet.evaluation.metrics import Measurement
from conpet.features.classifiers import LinearDiscriminant
from conpet.features.fitted import fitted_classifier
from conpet.features.grouped_logsumexp import segment_logsumexp
from conpet.fusion.base import Evidence, Fusion
from conpet.heads.base import Answer, Head
from conpet.methods.static import StaticMethod
from conpet.modules.adapter import MapUpdate
from conpet.modules.kinds.base import InjectedModule, ModuleKind, grouped_tensors, paths_named
from conpet.modules.sublayers import linear_maps
from conpet.replay.memory import Subset
from conpet.replay.rehearsal import Draw, Rehearsal
from conpet.selectors.base import Selector

# A method


class SmoothedConfig(MethodConfig):
    """Settings: `smoothing` is the share of the target that is spread over all labels."""

    smoothing: float = 0.1


class SmoothedReplay(StaticMethod):
    """EMR with label smoothing."""

    name = "smoothed"
    Config = SmoothedConfig
    config: SmoothedConfig

    def loss(self, batches: Any, step: Any) -> Tensor:
        """Return the smoothed cross-entropy over all labels seen."""
        logits = batches.head(batches.represent(step))
        losses = nn.functional.cross_entropy(
            logits, step.targets, reduction="none", label_smoothing=self.config.smoothing
        )
        return losses.mean()


# A selector


class TemperedConfig(SelectorConfig):
    """Settings: `temperature` divides the scores."""

    temperature: float = 2.0


class TemperedSelector(Selector):
    """LDA's probabilities of labels, softened and summed by task."""

    name = "tempered"
    Config = TemperedConfig
    config: TemperedConfig

    def log_probabilities(self, states: Any) -> Tensor:
        """Return log-probabilities of the T tasks `[n, T]`."""
        scores = fitted_classifier(self.state.statistics, LinearDiscriminant.name).scores(states.features)
        sizes = torch.tensor(self.state.sizes)
        owner = torch.arange(len(sizes)).repeat_interleave(sizes)
        return torch.log_softmax(segment_logsumexp(scores / self.config.temperature, owner, len(sizes)), dim=1)


# A module kind


class BitFitConfig(ModuleConfig):
    """Settings: `scale` multiplies the trained shifts."""

    scale: float = 1.0


class ShiftedLinear(nn.Module):
    """A frozen map with a trained shift of its output."""

    def __init__(self, base: nn.Linear, shift: nn.Parameter, scale: float) -> None:
        super().__init__()
        self.base, self.shift, self.scale = base, shift, scale

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[..., in]` to `[..., out]`."""
        output: Tensor = self.base(hidden)
        return (output + self.scale * self.shift).to(output.dtype)


class BitFit(ModuleKind):
    """A trained shift of the output of every linear map (after BitFit, Zaken et al. 2022)."""

    name = "bitfit"
    peft_type = "CONPET_BITFIT"
    Config = BitFitConfig

    def document(self, backbone: Any, config: ModuleConfig) -> dict[str, Any]:
        """Return the maps and the scale."""
        assert isinstance(config, BitFitConfig)
        return {"peft_type": self.peft_type, "targets": list(linear_maps(backbone)), "scale": config.scale}

    def inject(
        self, backbone: Any, suffix: Any, document: Mapping[str, Any], generator: torch.Generator
    ) -> InjectedModule:
        """Put shifts of zero in."""
        parameters = {}
        for path in paths_named(backbone, document["targets"]):
            base = suffix.shell.get_submodule(path)
            shift = nn.Parameter(torch.zeros(base.out_features, device=backbone.device))
            suffix.shell.set_submodule(path, ShiftedLinear(base, shift, document["scale"]))
            parameters[f"{path}.shift"] = shift
        return InjectedModule(parameters)

    def updates(self, adapter: Any, bases: Mapping[str, nn.Linear]) -> Mapping[str, MapUpdate]:
        """Return the shift of each map, so that rows of a batch may use different modules."""
        return {
            path: MapUpdate(
                scale_out=torch.ones(1, bases[path].out_features),
                shift=tensors[".shift"].reshape(1, -1) * adapter.document["scale"],
            )
            for path, tensors in grouped_tensors(adapter.tensors, (".shift",), bases).items()
        }


# A head


class NumberConfig(HeadConfig):
    """Settings: `unit` is the unit that answers are rounded to."""

    unit: float = 0.01


class NumberHead(Head):
    """Answers with a number: a linear map, trained by squared error."""

    name = "number"
    Config = NumberConfig
    config: NumberConfig

    def check(self, answers: Sequence[str]) -> list[str | None]:
        """Refuse what is not a number."""
        return [None if _is_number(one) else f"{one!r} is not a number" for one in answers]

    def document(self, answers: Sequence[str]) -> dict[str, Any]:
        """Return mean and spread of the training answers; outputs are in these units."""
        values = torch.tensor([float(one) for one in answers])
        return {"mean": float(values.mean()), "spread": float(values.std(correction=0)) or 1.0}

    def build(self, width: int, document: Mapping[str, Any], device: torch.device) -> nn.Module:
        """Return a map of zeros: it answers with the mean."""
        head: nn.Linear = nn.utils.skip_init(nn.Linear, width, 1, device=device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head

    def targets(self, answers: Sequence[str], document: Mapping[str, Any]) -> Tensor:
        """Return the answers in units of the spread `[n]`."""
        return (torch.tensor([float(one) for one in answers]) - document["mean"]) / document["spread"]

    def loss(self, head: nn.Module, representations: Tensor, targets: Tensor) -> Tensor:
        """Return the squared error of each example `[n]`."""
        return (head(representations).squeeze(1) - targets).square()

    def outputs(self, tensors: Mapping[str, Tensor], representations: Tensor) -> Tensor:
        """Return the answers in units of the spread `[n, 1]`."""
        return nn.functional.linear(representations, tensors["weight"], tensors["bias"])

    def answer(self, outputs: Tensor, document: Mapping[str, Any]) -> Answer:
        """Return the number, rounded."""
        value = document["mean"] + document["spread"] * float(outputs[0])
        return Answer(round(value / self.config.unit) * self.config.unit)

    def measure(self, answers: Sequence[Any], truth: Sequence[str]) -> Mapping[str, Measurement]:
        """Return the mean absolute error of the answers given, and how many of the inputs got one."""
        errors = [abs(one - float(true)) for one, true in zip(answers, truth, strict=True) if one is not None]
        found = {"answered": Measurement(len(errors) / len(truth), len(truth))} if truth else {}
        return found | ({"absolute_error": Measurement(sum(errors) / len(errors), len(errors))} if errors else {})


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# A replay schedule


class RecentConfig(ScheduleConfig):
    """Settings: only the `tasks` latest tasks are replayed."""

    tasks: int = 1


class RecentReplay(Rehearsal):
    """Examples of the latest tasks, one after the other."""

    name = "recent"
    Config = RecentConfig

    def __init__(self, memory: Any, backbone: Any, budget: Any, config: ScheduleConfig) -> None:
        assert isinstance(config, RecentConfig)
        first = max(0, len(memory) - config.tasks)
        draws = [
            Draw(task, position)
            for task in range(first, len(memory))
            for position in range(memory[task].count(Subset.TRAIN))
        ]
        repeated = [draws[number % len(draws)] for number in range(budget.examples)]
        super().__init__(memory, backbone, budget, config, repeated)


# A fusion


class SumConfig(FusionConfig):
    """Settings: `weight` of the modules beside LDA."""

    weight: float = 1.0


@dataclass(frozen=True)
class SumFusion(Fusion):
    """LDA's log-probabilities plus the modules' logits, where modules were run."""

    name: ClassVar[str] = "sum"
    Config: ClassVar[type[FusionConfig]] = SumConfig

    def log_probabilities(self, evidence: Evidence) -> Tensor:
        """Return log-probabilities `[n, C]`."""
        weight = self.config.weight if isinstance(self.config, SumConfig) else 1.0
        modules = evidence.modules.masked_fill(~evidence.ran, 0.0)
        return torch.log_softmax(evidence.lda + weight * modules, dim=1)


# A file format


def read_psv(path: Path) -> Iterator[RawRow | Problem]:
    """Read values separated by vertical bars, with a header."""
    header: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        cells = line.split("|")
        if number == 1:
            header = cells
        elif len(cells) != len(header):
            yield Problem(str(path), number, f"has {len(cells)} cells where the header has {len(header)}")
        else:
            yield RawRow(number, dict(zip(header, cells, strict=True)))

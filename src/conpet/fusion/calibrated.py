"""The calibrated fusion: a product of experts whose weights are fitted on held-out examples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from conpet.config import FusionConfig
from conpet.features.grouped_logsumexp import FLOOR, segment_logsumexp
from conpet.fusion.base import UNSELECTED, Evidence, Fusion
from conpet.fusion.settings import CalibratedFusionConfig

PRIOR_EXAMPLES = 5.0
"""Strength of the prior that holds the weights near their defaults, in examples."""
PRIOR_TEMPERATURE = 8.0
"""Temperature without held-out examples: experts that were fitted on few training examples are too sure."""
PRIOR_WEIGHT = 1.0
"""Strength of the prior that holds the temperature near `PRIOR_TEMPERATURE`: its loss at e times that temperature."""
UNSEEN = 0.25
"""With n held-out examples, `UNSEEN / (n + 2)` of the probability is spread over all labels."""
CANDIDATES = 32
"""Number of likeliest tasks that may be the answer, in addition to those whose modules were run."""


@dataclass(frozen=True)
class CalibratedFusion(Fusion):
    """A product of experts whose weights are fitted on held-out examples.

        frozen(label)    = a LDA's log-probability + b logistic regression's log-probability
        p(task)          ~ frozen(task) p_selector(task)^c
        p(label | task)  ~ frozen(label | task) p_module(label | task)^d                 if the module was run
                         ~ frozen(label | task)^(1 + d)                                  if not
        p(label)         = p(task) p(label | task)
        score(label)     ~ (1 - r) p(label)^(1/t) + r s(label)                           r = UNSEEN / (n + 2)

    frozen(label) is over all labels, and frozen(task) sums it over those of a task. As p(label | task) is normalised
    within its task, modules do not compete by the scale of their logits, which costs the paper's fusion accuracy at
    top_k > 1.

    With very many tasks, only those whose modules were run and the `CANDIDATES` likeliest others are combined in this
    way, in fitting and in answering. The labels of the rest get their share of frozen(label) over all labels.

    A module is run only where it may change the answer: not on an input whose likeliest label is already probable
    enough (`CalibratedFusionConfig.skip_above`, a value of p). This saves most passes of the suffix on text.

    The last line changes no order of labels. A few held-out examples, all answered correctly, cannot show that p is
    0.999 and not 0.9. So the temperature t stays near a prior until the n held-out examples are enough to tell, and no
    score is nearer to 1 than r allows: s is almost uniform.

    Attributes:
        lda: a. Small, because LDA is overconfident.
        logistic: b.
        selector: c.
        module: d.
        temperature: t.
        held_out: n, without repetitions.
    """

    lda: float = 0.03
    logistic: float = 0.7
    selector: float = 0.1
    module: float = 0.7
    temperature: float = PRIOR_TEMPERATURE
    held_out: int = 0

    config: CalibratedFusionConfig = field(
        default_factory=CalibratedFusionConfig, kw_only=True, compare=False, repr=False
    )

    name: ClassVar[str] = "calibrated"
    Config: ClassVar[type[FusionConfig]] = CalibratedFusionConfig

    def log_probabilities(self, evidence: Evidence) -> Tensor:
        """Return log-probabilities `[n, C]`."""
        return _spread(_tempered(self._product(evidence), self.temperature), UNSEEN / (self.held_out + 2))

    def _product(self, evidence: Evidence) -> Tensor:
        """Return the log-probabilities of the product of experts `[n, C]`."""
        weights = torch.tensor(self._weights, dtype=torch.float32)
        if evidence.tasks.shape[1] <= CANDIDATES:
            return _combine(evidence, _ModuleScores.of(evidence), weights).float()
        narrow, columns = _narrowed(evidence)
        return _widened(_combine(narrow, _ModuleScores.of(narrow), weights).float(), columns, evidence, weights)

    def decided(self, evidence: Evidence) -> Tensor:
        """Return the examples whose likeliest label has a probability of `skip_above` or more."""
        if self.config.skip_above is None:
            return super().decided(evidence)
        return self._product(evidence).amax(dim=1).exp() >= self.config.skip_above

    def fit(self, evidence: Evidence, targets: Tensor) -> CalibratedFusion:
        """Fit the weights by maximum likelihood, with a prior at the defaults worth `PRIOR_EXAMPLES` examples.

        Then the temperature is fitted, in which an example counts once, however often it was drawn.
        """
        if not len(targets):
            return self
        if evidence.tasks.shape[1] > CANDIDATES:
            evidence, columns = _narrowed(evidence, targets)
            targets = (columns == targets.unsqueeze(1)).int().argmax(dim=1)
        modules = _ModuleScores.of(evidence)
        start = torch.tensor(CalibratedFusion()._weights, dtype=torch.float32).log()
        weights = start.clone().requires_grad_(True)
        optimizer = torch.optim.LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            scores = _combine(evidence, modules, weights.exp())
            nll = -scores[torch.arange(len(targets)), targets].clamp(min=UNSELECTED).sum()
            value = (nll + PRIOR_EXAMPLES * (weights - start).square().sum()) / (len(targets) + PRIOR_EXAMPLES)
            value.backward()
            return value

        optimizer.step(loss)
        fitted = weights.detach().exp()
        scores = _combine(evidence, modules, fitted)
        once = _distinct(evidence, targets)
        temperature = _temperature(scores[once], targets[once])
        return replace(
            CalibratedFusion(*fitted.tolist(), config=self.config), temperature=temperature, held_out=len(once)
        )

    @property
    def _weights(self) -> list[float]:
        return [self.lda, self.logistic, self.selector, self.module]


@dataclass(frozen=True, slots=True, eq=False)
class _ModuleScores:
    """Log-probabilities within their tasks by the modules that were run: m (example, label) pairs, stored sparsely.

    Few labels have such scores, however many labels there are, so no dense matrix over labels is needed.

    Attributes:
        rows: Example of each pair `[m]`.
        columns: Label of each pair `[m]`.
        scores: Log-probability of the label among the labels of its module `[m]`.
    """

    rows: Tensor
    columns: Tensor
    scores: Tensor

    @classmethod
    def of(cls, evidence: Evidence) -> _ModuleScores:
        """Normalise the logits of each module that was run."""
        rows, columns = evidence.ran.nonzero(as_tuple=True)
        runs, run = torch.unique(rows * evidence.tasks.shape[1] + evidence.owner[columns], return_inverse=True)
        logits = evidence.modules[rows, columns]
        sums = segment_logsumexp(logits.unsqueeze(0), run, len(runs)).squeeze(0)
        return cls(rows, columns, logits - sums[run])


def _combine(evidence: Evidence, modules: _ModuleScores, weights: Tensor) -> Tensor:
    _, _, selector, module = weights.unbind()
    owner, tasks = evidence.owner, evidence.tasks.shape[1]
    frozen = _frozen(evidence, weights)
    frozen_of_task = segment_logsumexp(frozen, owner, tasks)
    task = torch.log_softmax(frozen_of_task + selector * evidence.tasks.clamp(min=FLOOR), dim=1)
    frozen_within = frozen - frozen_of_task.index_select(1, owner)
    expert = frozen_within.index_put((modules.rows, modules.columns), modules.scores)
    within = frozen_within + module * expert
    shift = task - segment_logsumexp(within, owner, tasks)
    return (within + shift.index_select(1, owner)).masked_fill(evidence.impossible, -torch.inf)


def _distinct(evidence: Evidence, targets: Tensor) -> list[int]:
    """Return the first row of each distinct example."""
    first: dict[bytes, int] = {}
    for row, (scores, target) in enumerate(zip(evidence.lda, targets.tolist(), strict=True)):
        first.setdefault(scores.numpy().tobytes() + bytes(str(target), "ascii"), row)
    return list(first.values())


def _temperature(scores: Tensor, targets: Tensor) -> float:
    """Return the temperature by maximum likelihood with a prior, given log-probabilities and the true columns."""
    explained = (scores.gather(1, targets.unsqueeze(1)) > -torch.inf).squeeze(1)
    scores, targets = scores[explained].clamp(min=FLOOR).double(), targets[explained]
    log_ratio = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_ratio], max_iter=30, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        tempered = _tempered(scores, PRIOR_TEMPERATURE * log_ratio.exp())
        nll = -tempered[torch.arange(len(targets)), targets].clamp(min=UNSELECTED).sum()
        value = (nll + PRIOR_WEIGHT * log_ratio.square().sum()) / (len(targets) + PRIOR_WEIGHT)
        value.backward()
        return value

    optimizer.step(loss)
    return PRIOR_TEMPERATURE * float(log_ratio.detach().exp())


def _tempered(scores: Tensor, temperature: float | Tensor) -> Tensor:
    """Return log-probabilities at a temperature; labels that are impossible stay so."""
    return torch.log_softmax(scores / temperature, dim=1).masked_fill(scores == -torch.inf, -torch.inf)


def _spread(scores: Tensor, share: float) -> Tensor:
    """Take a share of the probability and spread it almost evenly over all possible labels, in the order of the scores.

    With an even share, labels of very small probability would become equal.
    """
    even = torch.log_softmax((scores / (1 - scores)).masked_fill(scores == -torch.inf, -torch.inf), dim=1)
    mixed = torch.logaddexp(scores + math.log1p(-share), even + math.log(share))
    return mixed.masked_fill(scores == -torch.inf, -torch.inf)


def _frozen(evidence: Evidence, weights: Tensor) -> Tensor:
    """Return the weighted scores of the classifiers of frozen features `[n, C]`."""
    lda, logistic, _, _ = weights.unbind()
    return lda * evidence.lda.clamp(min=FLOOR) + logistic * evidence.logistic.clamp(min=FLOOR)


def _widened(scores: Tensor, columns: Tensor, evidence: Evidence, weights: Tensor) -> Tensor:
    """Return log-probabilities of all labels `[n, L]`, given those of the tasks kept by `_narrowed`.

    The other labels get their share of the frozen classifiers' probability over all labels, and the kept ones the rest.
    """
    labels = len(evidence.owner)
    everything = torch.log_softmax(_frozen(evidence, weights).masked_fill(evidence.impossible, -torch.inf), dim=1)
    kept = torch.zeros(len(scores), labels + 1, dtype=torch.bool).scatter_(1, columns, True)[:, :labels]
    share = everything.masked_fill(~kept, -torch.inf).logsumexp(dim=1, keepdim=True)
    placed = scores.new_full((len(scores), labels + 1), -torch.inf).scatter_(1, columns, scores + share)[:, :labels]
    return torch.where(kept, placed, everything)


def _narrowed(evidence: Evidence, targets: Tensor | None = None) -> tuple[Evidence, Tensor]:
    """Keep, for each example, the task of its target, the tasks whose modules were run, and the likeliest others.

    Each of the k tasks takes c columns, the size of the largest task; columns beyond its own labels are -inf.

    Returns:
        The evidence on the tasks kept `[n, k c]`, and the label of each column `[n, k c]`; L for a column without one.
    """
    tasks, owner = evidence.tasks, evidence.owner
    required = torch.zeros_like(tasks, dtype=torch.bool)
    rows, labels = evidence.ran.nonzero(as_tuple=True)
    required[rows, owner[labels]] = True
    if targets is not None:
        required.scatter_(1, owner[targets].unsqueeze(1), True)
    tasks_kept = required.sum(dim=1, keepdim=True) + CANDIDATES
    kept = tasks.masked_fill(required, torch.inf).topk(min(int(tasks_kept.max()), tasks.shape[1]), dim=1).indices
    sizes = torch.bincount(owner, minlength=tasks.shape[1])
    offsets = torch.arange(int(sizes.max()))
    starts = sizes.cumsum(dim=0) - sizes
    beyond = torch.arange(kept.shape[1]) >= tasks_kept
    surplus = ((offsets >= sizes[kept].unsqueeze(2)) | beyond.unsqueeze(2)).flatten(1)
    places = (starts[kept].unsqueeze(2) + offsets).flatten(1).masked_fill(surplus, 0)
    columns = owner.argsort(stable=True)[places]

    def gathered(scores: Tensor) -> Tensor:
        return scores.gather(1, columns).masked_fill(surplus, -torch.inf)

    narrow = Evidence(
        gathered(evidence.lda),
        gathered(evidence.logistic),
        tasks.gather(1, kept).masked_fill(beyond, -torch.inf),
        gathered(evidence.modules),
        torch.arange(kept.shape[1]).repeat_interleave(len(offsets)),
    )
    return narrow, columns.masked_fill(surplus, len(owner))

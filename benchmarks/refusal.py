"""Measure decisions to answer, ask or decline: unknown inputs, calibration, coverage, and many tasks.

See docs/how-to/refusal.md.

python benchmarks/refusal.py [--kept build/refusal] [PART ...]

No input that belongs to nothing is used in learning or calibration. Features are encoded once and kept in a folder.
Parts that are not named keep their results. One thread.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.provenance import measure_parts
from benchmarks.refusal_data import FOLDERS, Part, parts
from conpet import ConPET, Task
from conpet.config import Settings
from conpet.context import TrainContext
from conpet.cost import CostLedger
from conpet.data import Kind
from conpet.data.benchmarks import read_data
from conpet.features.cholesky import Factor
from conpet.features.classifiers import LinearDiscriminant
from conpet.features.feature_map import FeatureMap, View
from conpet.features.fitted import fitted_classifier
from conpet.features.grouped_logsumexp import segment_logsumexp
from conpet.features.scope import SHRINKAGE, Scope
from conpet.features.statistics import ClassSums, ClosedFormState, Gram, shrunk_covariance
from conpet.fusion.base import Evidence
from conpet.fusion.calibrated import CANDIDATES, CalibratedFusion
from conpet.methods import METHODS
from conpet.methods.base import Method
from conpet.methods.dynamic import CLASSIFIERS_FUSED
from conpet.refusal.calibration import Calibration
from conpet.replay.kmeans import k_means
from conpet.state.refusal import HeldOut, judge, refusal_artifact, scope_scores
from conpet.state.refusal import calibrated as calibrate
from conpet.state.slots import REFUSAL
from conpet.state.state import State, TaskState

BACKBONES = {"minilm-l6": 384, "mpnet-base": 768}
"""Backbones with the width of a block of their features."""
SMALL, DRAWS = (2, 6, 15, 40), 5
CONFIDENT = 0.9
LEVELS = (0.9, 0.95)
GROWTH = (10, 100, 1000)
MANY, MANY_TRAIN = ("clinc150", "banking77", "hwu64"), 100
"""Sets whose labels together are the many tasks, and most training examples of a label."""
_LEAST, _SPARE = 5, 1.3
"""Fewest training examples of a cluster that is learned, and clusters made for each, as some have fewer."""
_RARE = 0.01
_NOISE = 2.5
"""Deviation of the random features from their cluster, whose means have deviation 1."""


def main() -> None:
    torch.set_num_threads(1)
    measure_parts("refusal", (__doc__ or "").split("\n")[0], PARTS, {})


class Classifier(NamedTuple):
    """A workspace of the method `logistic` in memory, learned from precomputed features."""

    method: Method
    state: State
    fusion: CalibratedFusion | None = None
    """Combines the classifiers as the method `dynamic` does where it runs no module; None for `logistic` alone."""

    def scores(self, features: Tensor) -> Tensor:
        """Return log-probabilities of the labels `[n, C]`."""
        if self.fusion is not None:
            return self.fusion.log_probabilities(self.evidence(features))
        return self.method.score(self.state, _inputs(features), Kind.TEXT).classes

    def evidence(self, features: Tensor) -> Evidence:
        """Return the evidence of the classifiers, without modules."""
        statistics = self.method.statistics(self.state)
        lda, logistic = (fitted_classifier(statistics, name).scores(features) for name in CLASSIFIERS_FUSED)
        return evidence_of(lda, logistic, self.state.owner, len(self.state.tasks))

    def with_fusion(self, part: Part) -> Classifier:
        """Return the workspace with a fusion fitted on a part."""
        places = {name: column for column, name in enumerate(self.state.classes)}
        targets = torch.tensor([places[label] for label in part.labels])
        return self._replace(fusion=CalibratedFusion().fit(self.evidence(part.features), targets))

    def with_calibration(self, part: Part, **refusal: Any) -> Classifier:
        """Return the workspace with its decisions calibrated on a part."""
        settings = self.method.settings.changed({"refusal": refusal})
        method = type(self.method)(self.method.backbone, settings)
        inputs = _inputs(part.features)
        held_out = HeldOut(Kind.TEXT, inputs, part.labels, self.scores(part.features))
        calibration = calibrate(method, self.state, [held_out])
        state = self.state.with_shared({REFUSAL: refusal_artifact(calibration)})
        return self._replace(method=method, state=state)

    def choosing(self, **refusal: Any) -> Classifier:
        """Return the workspace with other costs, or a coverage."""
        settings = self.method.settings.changed({"refusal": refusal})
        return self._replace(method=type(self.method)(self.method.backbone, settings))

    def answers(self, part: Part) -> list[Answer]:
        """Return the answers to a part."""
        scores = self.scores(part.features)
        best = scores.max(dim=1)
        names = self.state.classes
        return [
            Answer(
                names[column],
                score,
                verdict.confidence,
                verdict.in_scope,
                verdict.choice.decision,
                tuple(names[column] for column in verdict.choice.columns),
                sum(verdict.choice.probabilities),
            )
            for column, score, verdict in zip(
                best.indices.tolist(),
                best.values.exp().tolist(),
                judge(self.method, self.state, _inputs(part.features), Kind.TEXT, scores),
                strict=True,
            )
        ]


class Answer(NamedTuple):
    """What the workspace says about an input."""

    label: str | None
    score: float
    confidence: float
    in_scope: float
    decision: str
    candidates: tuple[str, ...]
    listed: float


def _inputs(features: Tensor) -> Any:
    return {None: SimpleNamespace(features=features)}


def learned(tasks: Mapping[str, Part], block: int) -> Classifier:
    """Learn tasks, given their training examples."""
    width = next(iter(tasks.values())).features.shape[1]
    backbone = SimpleNamespace(feature_size=width, hidden_size=block, deterministic=False)
    method = METHODS["logistic"](backbone, Settings.parse({"method": "logistic"}))
    batch = [
        SimpleNamespace(
            task=TaskState(name, 1, tuple(sorted(set(part.labels))), Kind.TEXT, None),
            train=SimpleNamespace(features=part.features),
            classes=part.labels,
        )
        for name, part in tasks.items()
    ]
    updates = method.learn_batch(State(), batch, [TrainContext([], CostLedger(), 0)] * len(batch))
    return Classifier(method, State().apply(*updates))


def evidence_of(lda: Tensor, logistic: Tensor, owner: Tensor, tasks: int) -> Evidence:
    """Return the evidence of classifiers, with tasks as likely as their labels are together, and without modules."""
    by_task = torch.log_softmax(segment_logsumexp(lda, owner, tasks), dim=1)
    return Evidence(lda, logistic, by_task, torch.full_like(lda, -torch.inf), owner)


def groups_of(data: str) -> dict[str, list[str]]:
    """Return the labels of each domain of a data set; of Banking77, which has none, seven random groups of eleven."""
    read = read_data(data, FOLDERS)
    if read.groupings:
        return {name: list(labels) for name, labels in read.grouping().items()}
    labels = sorted(read.labels)
    random.Random(0).shuffle(labels)
    return {f"group {number}": sorted(labels[number::7]) for number in range(7)}


def by_task(part: Part, groups: Mapping[str, Iterable[str]]) -> dict[str, Part]:
    """Return the examples of each task."""
    return {name: part.of(labels) for name, labels in groups.items()}


# Metrics


def auroc(inside: Tensor, outside: Tensor) -> float:
    """Return the area under the ROC curve."""
    ranks = torch.cat([inside, outside]).double().argsort().argsort().double() + 1
    above = float(ranks[: len(inside)].sum()) - len(inside) * (len(inside) + 1) / 2
    return above / (len(inside) * len(outside))


def false_positives(inside: Tensor, outside: Tensor, recall: float = 0.95) -> float:
    """Return the share of unknown inputs above the score that `recall` of the known ones reach."""
    return float((outside >= inside.double().quantile(1 - recall)).double().mean())


def separation(inside: Tensor, outside: Tensor) -> dict[str, float]:
    """Return AUROC, and false positives at 95% recall."""
    return {"auroc": auroc(inside, outside), "false_positives": false_positives(inside, outside)}


def calibration_error(scores: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    """Return the expected calibration error over bins of equal width."""
    inside: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for score, hit in zip(scores, right, strict=True):
        inside[min(int(score * bins), bins - 1)].append((score, hit))
    return sum(abs(sum(s for s, _ in part) - sum(h for _, h in part)) for part in inside.values()) / len(scores)


def shares(answers: Sequence[Answer]) -> dict[str, float]:
    """Return the share of each decision, and of scores and confidences that look sure."""
    total = len(answers)
    counted = {name: sum(one.decision == name for one in answers) / total for name in ("answer", "ask", "decline")}
    return counted | {
        "score_above": sum(one.score > CONFIDENT for one in answers) / total,
        "score_above_099": sum(one.score > 0.99 for one in answers) / total,
        "confidence_above": sum(one.confidence > CONFIDENT for one in answers) / total,
        "mean_in_scope": sum(one.in_scope for one in answers) / total,
    }


# Parts


def scores_part(kept: Path) -> dict[str, Any]:
    """Compare scores of belonging to something learned: all 150 intents of CLINC150 against its unknown inputs."""
    return {
        backbone: {
            name: separation(*pair) for name, pair in _compared(parts("clinc150", backbone, kept), block).items()
        }
        for backbone, block in BACKBONES.items()
    }


def _compared(found: Mapping[str, Part], block: int) -> dict[str, tuple[Tensor, Tensor]]:
    workspace = learned({"all": found["train"]}, block)
    statistics = workspace.method.statistics(workspace.state)
    train, (weights,) = found["train"], statistics.logistic
    x = normalize(train.features)
    means = normalize(statistics.means(View.RAW).float())
    rows = statistics.means(View.RAW)
    within = statistics.gram.products[View.RAW] - statistics.between(View.RAW)
    freedom = statistics.gram.count - len(statistics.labels)
    factor = Factor.of(*shrunk_covariance(within, freedom, SHRINKAGE))
    whitened = factor.solve_lower(rows.T)

    def mahalanobis(features: Tensor) -> Tensor:
        z = factor.solve_lower(statistics.feature_map.view(View.RAW, features).T)
        distances = z.square().sum(dim=0).unsqueeze(1) - 2 * z.T @ whitened + whitened.square().sum(dim=0)
        return -distances.amin(dim=1)

    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "maximum softmax": lambda f: weights.logits(f).softmax(dim=1).amax(dim=1),
        "maximum logit": lambda f: weights.logits(f).amax(dim=1),
        "energy": lambda f: weights.logits(f).logsumexp(dim=1),
        "nearest neighbours": lambda f: (normalize(f) @ x.T).topk(3, dim=1).values.mean(dim=1),
        "nearest mean": lambda f: (normalize(f) @ means.T).amax(dim=1),
        "Mahalanobis": mahalanobis,
        "relative Mahalanobis": lambda f: _scope(workspace, f),
    }
    compared = {name: (way(found["test"].features), way(found["unknown"].features)) for name, way in ways.items()}
    validation = {name: way(found["validation"].features) for name, way in ways.items()}
    for other in ("maximum logit", "energy"):
        pair = ("relative Mahalanobis", other)
        compared[" + ".join(pair)] = tuple(  # type: ignore[assignment]
            sum((compared[name][side] - validation[name].mean()) / validation[name].std() for name in pair)
            for side in (0, 1)
        )
    return compared


def _scope(workspace: Classifier, features: Tensor) -> Tensor:
    return scope_scores(workspace.method, workspace.state, _inputs(features), Kind.TEXT).amax(dim=1)


def decisions_part(kept: Path) -> dict[str, Any]:
    """Decide on test inputs and unknown inputs of CLINC150, ten tasks, at the default costs."""
    result: dict[str, Any] = {}
    for backbone, block in BACKBONES.items():
        found = parts("clinc150", backbone, kept)
        workspace = learned(by_task(found["train"], groups_of("clinc150")), block).with_calibration(found["validation"])
        known, unknown = workspace.answers(found["test"]), workspace.answers(found["unknown"])
        result[backbone] = _decided(known, found["test"].labels, unknown)
    return result


def _decided(known: Sequence[Answer], labels: Sequence[str], unknown: Sequence[Answer]) -> dict[str, Any]:
    right = [one.label == label for one, label in zip(known, labels, strict=True)]
    given = [hit for one, hit in zip(known, right, strict=True) if one.decision == "answer"]
    asked = [(one, label in one.candidates) for one, label in zip(known, labels, strict=True) if one.decision == "ask"]
    everything, hits = [*known, *unknown], [*right, *(False for _ in unknown)]
    costs = Settings().refusal
    spent = {"answer": 0.0, "ask": costs.question, "decline": 0.0}
    total = sum(spent[one.decision] for one in everything)
    for one, label, hit in zip(known, labels, right, strict=True):
        failed = one.decision == "decline" or (one.decision == "ask" and label not in one.candidates)
        total += costs.error * (failed or (one.decision == "answer" and not hit))
    total += sum(costs.error if one.decision == "answer" else costs.refusal for one in unknown)
    always = costs.error * (len(hits) - sum(hits))
    return {
        "known": shares(known),
        "unknown": shares(unknown),
        "separation": separation(*(torch.tensor([one.in_scope for one in part]) for part in (known, unknown))),
        "accuracy": sum(right) / len(right),
        "accuracy_of_answers": sum(given) / max(1, len(given)),
        "questions": {
            "number": len(asked),
            "stated_if_known": sum(one.listed / one.in_scope for one, _ in asked) / max(1, len(asked)),
            "right": sum(hit for _, hit in asked) / max(1, len(asked)),
            "candidates": sum(len(one.candidates) for one, _ in asked) / max(1, len(asked)),
        },
        "calibration_error": {
            "known": {
                "score": calibration_error([one.score for one in known], right),
                "confidence": calibration_error([one.confidence for one in known], right),
            },
            "known and unknown": {
                "score": calibration_error([one.score for one in everything], hits),
                "confidence": calibration_error([one.confidence for one in everything], hits),
            },
        },
        "cost_per_input": {"always answering": always / len(everything), "deciding": total / len(everything)},
    }


def small_part(kept: Path) -> dict[str, Any]:
    """Learn one task of few labels; decide on its test inputs, on unknown inputs and on inputs of the other intents."""
    found = parts("clinc150", "minilm-l6", kept)
    labels = sorted(set(found["train"].labels))
    return {
        str(size): _mean([_small(found, random.Random(draw).sample(labels, size)) for draw in range(DRAWS)])
        for size in SMALL
    }


def _small(found: Mapping[str, Part], chosen: Sequence[str]) -> dict[str, Any]:
    workspace = learned({"one": found["train"].of(chosen)}, 384).with_calibration(found["validation"].of(chosen))
    test, unknown = found["test"].of(chosen), found["unknown"]
    others = found["test"].of(set(found["test"].labels).difference(chosen))
    others = others.at(range(0, len(others.labels), 5))
    answers = workspace.answers(test)
    return {
        **_decided(answers, test.labels, workspace.answers(unknown)),
        "other_intents": shares(workspace.answers(others)),
    }


def modules_part(kept: Path) -> dict[str, Any]:
    """As `small`, with trained modules: one workspace of the default method on disk for each size, one draw."""
    read = read_data("clinc150", FOLDERS)
    found = parts("clinc150", "minilm-l6", kept)
    labels = sorted(set(found["train"].labels))
    result = {}
    for size in SMALL:
        chosen = random.Random(0).sample(labels, size)
        drawn = {name: tuple(found[name].of(chosen).examples) for name in ("train", "validation", "test")}
        with tempfile.TemporaryDirectory() as folder:
            workspace = ConPET.create(Path(folder) / "ws")
            workspace.learn(Task("one", drawn["train"], drawn["validation"]), evaluate=False)
            known, unknown = (
                [
                    Answer(
                        one.label,
                        one.score,
                        one.confidence,
                        one.in_scope,
                        one.decision,
                        tuple(str(candidate.label) for candidate in one.candidates),
                        one.candidates_score,
                    )
                    for one in workspace.predict([example.labelled(None) for example in examples])
                ]
                for examples in (drawn["test"], read.out_of_scope)
            )
        result[str(size)] = _decided(known, [str(example.label) for example in drawn["test"]], unknown)
    return result


def domains_part(kept: Path) -> dict[str, Any]:
    """Leave each domain out of learning: its test inputs are unknown."""
    result: dict[str, Any] = {}
    for data in ("clinc150", "banking77", "hwu64"):
        found, groups = parts(data, "minilm-l6", kept), groups_of(data)
        rows = []
        for left in groups:
            rest = {name: labels for name, labels in groups.items() if name != left}
            names = [label for labels in rest.values() for label in labels]
            workspace = learned(by_task(found["train"], rest), 384).with_calibration(found["validation"].of(names))
            test = found["test"].of(names)
            rows.append(
                _decided(workspace.answers(test), test.labels, workspace.answers(found["test"].of(groups[left])))
            )
        result[data] = {
            "domains": len(groups),
            "lowest_auroc": min(row["separation"]["auroc"] for row in rows),
            **_mean(rows),
        }
    return result


def coverage_part(kept: Path) -> dict[str, Any]:
    """Compare the coverage reached with the one promised, for each label; with and without shift."""
    result: dict[str, Any] = {}
    for data in ("clinc150", "banking77", "hwu64"):
        found = parts(data, "minilm-l6", kept)
        workspace = learned(by_task(found["train"], groups_of(data)), 384).with_calibration(found["validation"])
        for name in ("test", "misspelt"):
            if name in found:
                result[f"{data}, {name}"] = {
                    str(level): _coverage(workspace.choosing(coverage=level), found[name], level) for level in LEVELS
                }
    return result


def _coverage(workspace: Classifier, part: Part, level: float) -> dict[str, Any]:
    answers = workspace.answers(part)
    hits: dict[str, list[bool]] = defaultdict(list)
    for one, label in zip(answers, part.labels, strict=True):
        listed = one.candidates if one.decision == "ask" else (one.label,) if one.decision == "answer" else ()
        hits[label].append(label in listed)
    stored = Calibration.from_json(workspace.state.shared[REFUSAL].document(REFUSAL))
    promised = stored.thresholds(list(hits), level).promised
    low = [
        label
        for label in promised
        if _chance(sum(hits[label]), len(hits[label]), len(stored.truth[label]), level) < _RARE
    ]
    sizes = [max(1, len(one.candidates)) for one in answers if one.decision != "decline"]
    return {
        "reached": sum(map(sum, hits.values())) / len(answers),
        "labels": len(hits),
        "promised": len(promised),
        "mean_over_labels": sum(sum(of) / len(of) for of in hits.values()) / len(hits),
        "promised_and_lower_than_chance_explains": len(low),
        "candidates": sum(sizes) / max(1, len(sizes)),
        **{name: value for name, value in shares(answers).items() if name in ("answer", "ask", "decline")},
    }


def _chance(hits: int, total: int, held_out: int, level: float) -> float:
    """Return the probability of so few hits, or fewer, if the promise holds.

    The coverage of a label's threshold is Beta-distributed over draws of its held-out examples (Vovk 2012), so the hits
    are Beta-binomial.
    """
    rank = math.floor(round((held_out + 1) * (1 - level), 9))
    a, b = held_out + 1 - rank, rank

    def beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    return sum(
        math.exp(math.log(math.comb(total, k)) + beta(k + a, total - k + b) - beta(a, b)) for k in range(hits + 1)
    )


def growth_part(kept: Path) -> dict[str, Any]:
    """Learn 10, 100 and 1,000 tasks of two labels from random features; unknown inputs come from 200 other clusters."""
    return {str(tasks): _grown(tasks) for tasks in GROWTH}


def _grown(tasks: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(tasks)
    width, block, each = 256, 64, 5

    def drawn(centres: Tensor, number: int) -> Tensor:
        noise = torch.randn(len(centres) * number, width, generator=generator)
        x = centres.repeat_interleave(number, dim=0) + _NOISE * noise
        return torch.cat([normalize(part, dim=1) * block**0.5 for part in x.split(block, dim=1)], dim=1)

    centres, others = torch.randn(2 * tasks, width, generator=generator), torch.randn(200, width, generator=generator)
    names = [f"{number:05}" for number in range(2 * tasks)]
    features = drawn(centres, each)
    rows = [name for name in names for _ in range(each)]
    feature_map = FeatureMap(width, 512, 0)
    started = time.process_time()
    sums = tuple(
        ClassSums.of(feature_map, features[at : at + 2 * each], rows[at : at + 2 * each])
        for at in range(0, len(rows), 2 * each)
    )
    statistics = ClosedFormState(Gram.zero(feature_map).plus(features), sums)
    learning = time.process_time() - started
    started = time.process_time()
    scope = Scope.fit(statistics, torch.arange(2 * tasks))
    fitting = time.process_time() - started
    test, unknown = drawn(centres, 1), drawn(others, 1)
    started = time.process_time()
    inside, outside = scope.scores(test).amax(dim=1), scope.scores(unknown).amax(dim=1)
    scoring = time.process_time() - started
    return {
        "labels": len(names),
        **separation(inside, outside),
        "seconds": {"statistics": learning, "scope": fitting, "per_answer": scoring / (len(test) + len(unknown))},
        **_mass(statistics, test, tasks),
    }


def _mass(statistics: ClosedFormState, test: Tensor, tasks: int) -> dict[str, Any]:
    """Return how much probability true labels get beyond the tasks that are combined in full."""
    owner = torch.arange(tasks).repeat_interleave(2)
    lda = LinearDiscriminant().fit(statistics).scores(test)
    evidence = evidence_of(lda, lda, owner, tasks)
    return _beyond(evidence, CalibratedFusion().log_probabilities(evidence), torch.arange(len(test)))


def _beyond(evidence: Evidence, scores: Tensor, targets: Tensor) -> dict[str, Any]:
    """Return how much probability true labels get beyond the tasks that are combined in full.

    Args:
        evidence: The evidence on n inputs.
        scores: Log-probabilities of the labels `[n, C]`.
        targets: The true labels `[n]`.
    """
    rows = torch.arange(len(targets))
    truth = scores[rows, targets].exp()
    by_task = evidence.tasks
    ranks = by_task.argsort(dim=1, descending=True).argsort(dim=1)
    beyond = ranks[rows, evidence.owner[targets]] >= CANDIDATES
    outside = (ranks[:, evidence.owner] >= CANDIDATES) & torch.isfinite(evidence.lda)
    best = scores.max(dim=1)
    hits = (best.indices == targets).tolist()
    return {
        "true_label_beyond_the_likeliest_tasks": int(beyond.sum()),
        "probability_beyond_the_likeliest_tasks": float(scores.exp().masked_fill(~outside, 0.0).sum(dim=1).mean()),
        "true_label_with_probability_0": int((truth == 0).sum()),
        "total_probability": float(scores.exp().sum(dim=1).mean()),
        "calibration_error": calibration_error(best.values.exp().tolist(), hits),
    }


def tasks_part(kept: Path) -> dict[str, Any]:
    """Learn 10, 100 and 1,000 tasks of one label each; decide on their test inputs, and on unknown inputs of CLINC150.

    The labels are those of three sets together. For 1,000 tasks, each is cut into clusters of its training inputs: an
    input belongs to the nearest one.
    """
    backbone = "minilm-l6"
    return {str(tasks): _decided_among(tasks, backbone, kept) for tasks in GROWTH}


def _decided_among(tasks: int, backbone: str, kept: Path) -> dict[str, Any]:
    found = _labels_of_all(backbone, kept, tasks)
    started = time.process_time()
    workspace = learned({label: found["train"].of([label]) for label in sorted(set(found["train"].labels))}, 384)
    learning = time.process_time() - started
    validation, test, unknown = found["validation"], found["test"], found["unknown"]
    fused = workspace.with_fusion(validation)
    result: dict[str, Any] = {
        "labels": len(workspace.state.classes),
        "examples": {name: len(part.labels) for name, part in found.items()},
        "seconds_to_learn": learning,
    }
    for name, one in (("logistic", workspace), ("fusion", fused)):
        started = time.process_time()
        calibrated = one.with_calibration(validation)
        fitting = time.process_time() - started
        started = time.process_time()
        known, others = calibrated.answers(test), calibrated.answers(unknown)
        deciding = (time.process_time() - started) / (len(known) + len(others))
        result[name] = {
            **_decided(known, test.labels, others),
            "coverage": {str(level): _coverage(calibrated.choosing(coverage=level), test, level) for level in LEVELS},
            "seconds_to_calibrate": fitting,
            "seconds_per_decision": deciding,
        }
    places = {name: column for column, name in enumerate(fused.state.classes)}
    targets = torch.tensor([places[label] for label in test.labels])
    beyond = _beyond(fused.evidence(test.features), fused.scores(test.features), targets)
    result["fusion"]["beyond_the_likeliest_tasks"] = beyond
    return result


def _labels_of_all(backbone: str, kept: Path, number: int) -> dict[str, Part]:
    """Return the parts of several sets together, with a number of labels, cut into clusters if there are too few."""
    sets = {data: parts(data, backbone, kept, train=MANY_TRAIN) for data in MANY}
    joined = {
        name: Part.joined([found[name].renamed(data) for data, found in sets.items()])
        for name in ("train", "validation", "test")
    }
    labels = sorted(set(joined["train"].labels))
    if number > len(labels):
        cuts = math.ceil(_SPARE * number / len(labels))
        centres = {}
        for label in labels:
            own = normalize(joined["train"].of([label]).features)
            centres[label] = k_means(own, min(cuts, len(own) - 1), 0)
        joined = {name: _cut(part, centres) for name, part in joined.items()}
        sizes = Counter(joined["train"].labels)
        labels = sorted(label for label, size in sizes.items() if size >= _LEAST)
    chosen = random.Random(number).sample(labels, min(number, len(labels)))
    return {**{name: part.of(chosen) for name, part in joined.items()}, "unknown": sets["clinc150"]["unknown"]}


def _cut(part: Part, centres: Mapping[str, Tensor]) -> Part:
    """Return a part whose labels name the cluster, too."""
    x = normalize(part.features)
    nearest = [
        int((centres[label] - row).square().sum(dim=1).argmin()) for row, label in zip(x, part.labels, strict=True)
    ]
    return part._replace(labels=[f"{label} {cut}" for label, cut in zip(part.labels, nearest, strict=True)])


def _mean(rows: Sequence[Any]) -> Any:
    """Return the mean of results of the same form."""
    if isinstance(rows[0], dict):
        return {name: _mean([row[name] for row in rows]) for name in rows[0]}
    return sum(rows) / len(rows)


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "scores": scores_part,
    "decisions": decisions_part,
    "small": small_part,
    "modules": modules_part,
    "domains": domains_part,
    "coverage": coverage_part,
    "growth": growth_part,
    "tasks": tasks_part,
}

if __name__ == "__main__":
    main()

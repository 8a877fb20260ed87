"""Decisions of a state: probabilities of belonging to something learned, and what they are calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from conpet.artifact import Artifact
from conpet.data import Kind
from conpet.features.scope import Scope
from conpet.heads.labels import indices_of
from conpet.refusal.calibration import (
    MIN_EXAMPLES,
    Calibration,
    ScopeCalibration,
    Source,
    Thresholds,
    doubt,
    no_coverage,
)
from conpet.refusal.decision import Choice, choose_by_costs, choose_by_coverage
from conpet.refusal.fit import fit_scope, fit_temperature, probability_of_scope, tempered
from conpet.state.inputs import EncodedInputs, by_template
from conpet.state.slots import REFUSAL
from conpet.state.state import State, TaskState
from conpet.state.statistics import classes_of, features_of

if TYPE_CHECKING:
    from conpet.methods.base import Method

_HELD_OUT = 512
"""Most training examples that are subtracted from the statistics to be scored."""
_TASKS = 16
"""Most tasks whose training examples are read for that."""
_EVERY = 5
"""One of so many training examples of a label is held out."""


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What a state says about one input.

    Attributes:
        in_scope: Probability of belonging to something learned.
        confidence: Probability that the likeliest label is right, `in_scope` included.
        scope: The score that `in_scope` was made of.
        choice: The decision, with columns of the state's classes.
    """

    in_scope: float
    confidence: float
    scope: float
    choice: Choice


def judge(method: Method, state: State, inputs: EncodedInputs, kind: Kind, scores: Tensor) -> list[Verdict]:
    """Decide on inputs of one kind.

    Args:
        method: The method.
        state: The state.
        inputs: The inputs.
        kind: Their kind.
        scores: Log-probabilities of the classes `[n, C]`.
    """
    calibration = calibration_of(method, state)
    fitted = calibration.kinds[kind]
    possible = (~state.impossible(kind)).nonzero().squeeze(1)
    config = method.settings.refusal
    places = possible.tolist()
    labels: list[str] = []
    thresholds = None
    if config.coverage is not None:
        labels = [state.classes[column] for column in places]
        thresholds = _thresholds(state, calibration, kind, labels, config.coverage)
    # Thresholds are compared with probabilities under the share that they were fitted with.
    share = fitted.unknown_share if thresholds is not None and thresholds.pooled else config.unknown_share
    scopes = scope_scores(method, state, inputs, kind).amax(dim=1)
    inside = probability_of_scope(fitted, scopes, share)
    probabilities = tempered(scores[:, possible], fitted.temperature).double().exp() * inside.unsqueeze(1)
    if thresholds is not None and thresholds.pooled:
        choices, note = choose_by_coverage(probabilities, inside, labels, thresholds), None
    else:
        choices, note = choose_by_costs(probabilities, inside, config), doubt(fitted)
        if config.coverage is not None:
            note = no_coverage(config.coverage, fitted.answered, "decided")
    confidences = probabilities.amax(dim=1).tolist()
    return [
        Verdict(
            belongs,
            confidence,
            scope,
            replace(
                choice,
                columns=tuple(places[column] for column in choice.columns),
                reason=f"{choice.reason} ({note})" if note else choice.reason,
            ),
        )
        for belongs, confidence, scope, choice in zip(
            inside.tolist(), confidences, scopes.tolist(), choices, strict=True
        )
    ]


def decision_cost(method: Method, state: State, held_out: Sequence[HeldOut]) -> float | None:
    """Return the mean cost of the decisions on validation examples, where an error costs 1; None without examples.

    A wrong answer and a refusal are errors, because the examples belong to learned labels; so is a question without the
    right candidate, beside its own cost. None, too, if an error costs nothing.
    """
    config = method.settings.refusal
    costs: list[float] = []
    for part in held_out:
        best = part.scores.argmax(dim=1).tolist()
        verdicts = judge(method, state, part.inputs, part.kind, part.scores)
        for name, column, verdict in zip(part.classes, best, verdicts, strict=True):
            listed = {state.classes[each] for each in verdict.choice.columns}
            match verdict.choice.decision:
                case "answer":
                    costs.append(config.error * (state.classes[column] != name))
                case "ask":
                    costs.append(config.question + config.error * (name not in listed))
                case "decline":
                    costs.append(config.error)
    return sum(costs) / (len(costs) * config.error) if costs and config.error else None


def scope_scores(method: Method, state: State, inputs: EncodedInputs, kind: Kind) -> Tensor:
    """Return the score of each class of a kind `[n, C_kind]`, -inf for those that may not answer."""
    columns, scope = method.scope(state, kind)
    templates = [state.class_templates[column] for column in columns.tolist()]
    scores = by_template(templates, inputs, lambda states: scope.scores(states.features))
    return scores.masked_fill(state.impossible(kind)[columns], -torch.inf)


def calibration_of(method: Method, state: State) -> Calibration:
    """Return the calibration stored with a state, or one fitted on its training examples if there is none."""

    def read() -> Calibration:
        stored = state.shared.get(REFUSAL)
        if stored is not None:
            calibration = Calibration.from_json(stored.document(REFUSAL))
            if calibration.kinds.keys() >= {str(kind) for kind in kinds_of(state)}:
                return calibration
        return calibrated_on_training(method, state.held_out)

    return state.fitted(REFUSAL, read)


def _thresholds(
    state: State, calibration: Calibration, kind: Kind, labels: Sequence[str], coverage: float
) -> Thresholds:
    """Return the thresholds for the labels that may answer; computed once for all of them."""
    if state.only is not None:
        return calibration.thresholds(labels, coverage)
    return state.fitted(f"thresholds {kind} {coverage}", lambda: calibration.thresholds(labels, coverage))


def kinds_of(state: State) -> list[Kind]:
    """Return the kinds of input of which there are tasks."""
    return [kind for kind in Kind if any(task.kind is kind for task in state.tasks)]


def refusal_artifact(calibration: Calibration) -> Artifact:
    """Return the shared object of a calibration."""
    return Artifact(documents={REFUSAL: calibration.to_json()})


# Fitting


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Validation examples of one kind, with the state's scores of them.

    Attributes:
        kind: The kind.
        inputs: The inputs.
        classes: The class of each.
        scores: Log-probabilities of the state's classes `[n, C]`.
    """

    kind: Kind
    inputs: EncodedInputs
    classes: Sequence[str]
    scores: Tensor


def calibrated(method: Method, state: State, held_out: Sequence[HeldOut]) -> Calibration:
    """Fit the calibration of a state.

    Args:
        method: The method.
        state: The state.
        held_out: Validation examples, at most one entry for a kind. Of a kind without any, training examples are held
            out; then nothing is known about how probable the right label is.
    """
    kinds: dict[str, ScopeCalibration] = {}
    truth: dict[str, list[float]] = {}
    missing = [kind for kind in kinds_of(state) if all(part.kind is not kind for part in held_out)]
    for part in held_out:
        fitted, scores_of_known = _on_validation(method, state, part)
        if fitted.known < MIN_EXAMPLES:
            fitted = max(fitted, _on_training(method, state, part.kind), key=lambda one: one.known)
        inside = probability_of_scope(fitted, scores_of_known)
        possible = (~state.impossible(part.kind)).nonzero().squeeze(1)
        targets = indices_of(part.classes, [state.classes[column] for column in possible.tolist()])
        scores = part.scores[:, possible]
        temperature = fit_temperature(scores, targets)
        right = tempered(scores, temperature).double().exp().gather(1, targets.unsqueeze(1)).squeeze(1) * inside
        kinds[part.kind] = replace(fitted, temperature=temperature, answered=len(targets))
        for name, value in zip(part.classes, right.tolist(), strict=True):
            truth.setdefault(name, []).append(round(value, 6))
    for kind in missing:
        kinds[kind] = _on_training(method, state, kind)
    return Calibration(kinds, {label: sorted(values) for label, values in truth.items()})


def calibrated_on_training(method: Method, state: State) -> Calibration:
    """Fit the calibration of a state on training examples alone."""
    return calibrated(method, state, ())


def _on_validation(method: Method, state: State, part: HeldOut) -> tuple[ScopeCalibration, Tensor]:
    """Fit on validation examples; return also the score of each `[n]`."""
    columns, scope = method.scope(state, part.kind)
    names = [state.classes[column] for column in columns.tolist()]
    own = indices_of(part.classes, names)
    known = scope_scores(method, state, part.inputs, part.kind).amax(dim=1)
    unknown = []
    for template, states in part.inputs.items():
        rows = torch.tensor([state.class_templates[columns[column]] == template for column in own.tolist()])
        if rows.any():
            unknown.append(_as_unknown(state, scope, columns, states.features[rows], own[rows]))
    return fit_scope(Source.VALIDATION, known, torch.cat(unknown), method.settings.refusal.unknown_share), known


def _on_training(method: Method, state: State, kind: Kind) -> ScopeCalibration:
    """Fit on training examples that are subtracted from the statistics."""
    share = method.settings.refusal.unknown_share
    columns, scope = method.scope(state, kind)
    names = [state.classes[column] for column in columns.tolist()]
    tasks = [task for task in state.tasks if task.kind is kind]
    drawn = [_drawn(task, max(1, _HELD_OUT // len(names))) for task in tasks[:: -(-len(tasks) // _TASKS)]]
    held_out = [(features, classes) for features, classes in drawn if classes]
    if not held_out:
        return fit_scope(Source.MEANS, *scope.references, share)
    features = torch.cat([features for features, _ in held_out])
    own = indices_of([name for _, classes in held_out for name in classes], names)
    reduced = Scope.without_rows(method.statistics(state), columns, features, own)
    known = reduced.scores(features).amax(dim=1)
    return fit_scope(Source.TRAINING, known, _as_unknown(state, reduced, columns, features, own), share)


def _drawn(task: TaskState, per_label: int) -> tuple[Tensor, list[str]]:
    """Return features and classes of training examples of a task to hold out; at least half of each label's stay."""
    classes = classes_of(task)
    rows: list[int] = []
    for name in dict.fromkeys(classes):
        of_class = [row for row, other in enumerate(classes) if other == name]
        rows += of_class[1 :: min(_EVERY, len(of_class))][:per_label]
    return features_of(task)[rows], [classes[row] for row in rows]


def _as_unknown(state: State, scope: Scope, columns: Tensor, features: Tensor, own: Tensor) -> Tensor:
    """Return the scores of examples as if their label had not been learned, and as if their task had not `[m]`.

    With a single label, nothing is left without it; general language with the deviations of the examples takes their
    place.
    """
    if len(columns) == 1:
        return scope.scores_of_general(features, own).amax(dim=1)
    labels = torch.arange(len(columns))
    scores = [scope.scores_without(features, own, labels).amax(dim=1)]
    tasks = state.owner[columns]
    if len(tasks.unique()) > 1:
        scores.append(scope.scores_without(features, tasks[own], tasks).amax(dim=1))
    return torch.cat(scores)

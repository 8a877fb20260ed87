"""How evidence becomes one ranking: the paper's fusion as written down, the calibrated one by what it promises."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conpet import ConPET
from conpet.fusion import FUSIONS, calibrated
from conpet.fusion.base import UNSELECTED, Evidence, Fusion
from conpet.fusion.calibrated import CalibratedFusion
from conpet.fusion.paper import PaperFusion
from conpet.methods import dynamic
from conpet.modules.module import StoredModule
from conpet.modules.pool import ModulePool
from conpet.modules.training import TrainingJob
from conpet.state.slots import MODULE
from conpet.testing import check_fusion_contract, live_of, random_evidence
from tests.helpers.live import encoded
from tests.helpers.workspaces import stream, workspace


def rows_of(evidence: Evidence, rows: slice | Tensor) -> Evidence:
    per_row = [evidence.lda, evidence.logistic, evidence.tasks, evidence.modules]
    return Evidence(*(one[rows] for one in per_row), owner=evidence.owner)


def nll(fusion: Fusion, evidence: Evidence, targets: Tensor) -> float:
    return -float(fusion.log_probabilities(evidence)[torch.arange(len(targets)), targets].mean())


def informative(rows: int, seed: int, modules: float = 4.0) -> tuple[Evidence, Tensor]:
    """Return evidence over three tasks of two labels in which the modules know best, and the true labels."""
    generator = torch.Generator().manual_seed(seed)
    owner = torch.tensor([0, 0, 1, 1, 2, 2])
    targets = torch.randint(6, (rows,), generator=generator)
    right = torch.nn.functional.one_hot(targets, 6).float()
    tasks = torch.nn.functional.one_hot(owner[targets], 3).float()

    def noisy(signal: Tensor, strength: float) -> Tensor:
        return strength * signal + torch.randn(signal.shape, generator=generator)

    return Evidence(
        torch.log_softmax(noisy(right, 1.0), dim=1),
        torch.log_softmax(noisy(right, 1.0), dim=1),
        torch.log_softmax(noisy(tasks, 3.0), dim=1),
        noisy(right, modules),
        owner,
    ), targets


@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion_keeps_its_contract(name: str) -> None:
    check_fusion_contract(name)


@pytest.mark.parametrize("selected", [1, 2])
def test_the_papers_fusion_is_one_softmax_with_minus_100_for_tasks_not_selected(selected: int) -> None:
    evidence = random_evidence(rows=10, selected=selected)
    scores = PaperFusion().log_probabilities(evidence)
    for row in range(10):
        logits = []
        for label in range(7):
            if float(evidence.lda[row, label]) == -math.inf:
                continue  # of another kind: no label of this input at all
            ran = float(evidence.modules[row, label]) > -math.inf
            logits.append(float(evidence.modules[row, label]) if ran else -100.0)
        total = sum(math.exp(logit) for logit in logits)
        expected = [logit - math.log(total) for logit in logits]
        assert scores[row, :5].tolist() == pytest.approx(expected, abs=1e-4)
        assert (scores[row, 5:] == -math.inf).all()


def test_the_papers_fusion_has_nothing_to_fit() -> None:
    evidence, targets = informative(20, seed=0)
    assert PaperFusion().fit(evidence, targets) == PaperFusion()


@pytest.mark.parametrize("fusion", [CalibratedFusion(), PaperFusion()])
def test_all_modules_run_is_a_case_like_any_other(fusion: Fusion) -> None:
    evidence, _ = informative(30, seed=1)
    assert evidence.ran.all()
    assert fusion.log_probabilities(evidence).exp().sum(dim=1).tolist() == pytest.approx([1.0] * 30, abs=1e-5)


def test_modules_do_not_compete_by_the_scale_of_their_logits() -> None:
    evidence, _ = informative(30, seed=2)
    louder = replace(evidence, modules=evidence.modules + 50.0 * (evidence.owner == 1))
    calibrated, paper = CalibratedFusion(), PaperFusion()
    torch.testing.assert_close(calibrated.log_probabilities(evidence), calibrated.log_probabilities(louder))
    assert (evidence.owner[paper.log_probabilities(louder).argmax(dim=1)] == 1).all()


def as_written(evidence: Evidence, row: int, fusion: CalibratedFusion) -> list[float]:
    """Return one row's log-probabilities by the formulas of `CalibratedFusion`, task by task, in float64."""
    a, b, c, d = fusion.lda, fusion.logistic, fusion.selector, fusion.module
    tasks = {}
    possible = set(evidence.owner[~evidence.impossible[row]].tolist())
    run = set(evidence.owner[evidence.ran[row]].tolist())
    others = sorted(possible - run, key=lambda task: -float(evidence.tasks[row, task]))
    for task in run | set(others[: calibrated.CANDIDATES]):
        labels = (evidence.owner == task).nonzero().squeeze(1)
        frozen = a * evidence.lda[row, labels].double() + b * evidence.logistic[row, labels].double()
        module = evidence.modules[row, labels].double().log_softmax(dim=0)
        within = frozen.log_softmax(dim=0)
        second = torch.where(evidence.ran[row, labels], module, within)
        tasks[task] = (labels, frozen.logsumexp(dim=0) + c * evidence.tasks[row, task], within + d * second)
    whole = torch.stack([score for _, score, _ in tasks.values()]).logsumexp(dim=0)
    frozen = a * evidence.lda[row].double() + b * evidence.logistic[row].double()
    scores = frozen.log_softmax(dim=0)  # the share of the labels of other tasks
    kept = torch.cat([labels for labels, _, _ in tasks.values()])
    share = scores[kept].logsumexp(dim=0) if len(tasks) < len(possible) else torch.zeros(())
    for labels, score, within in tasks.values():
        scores[labels] = score - whole + within.log_softmax(dim=0) + share
    possible_labels = scores > -torch.inf
    tempered = (scores[possible_labels] / fusion.temperature).log_softmax(dim=0)
    even = (tempered / (1 - tempered)).softmax(dim=0)
    r = calibrated.UNSEEN / (fusion.held_out + 2)
    scores[possible_labels] = ((1 - r) * tempered.exp() + r * even).log()
    return scores.tolist()  # type: ignore[no-any-return]


def many_labels(sizes: list[int], *, partly: bool) -> Evidence:
    """Return evidence over tasks of such sizes, every third of another kind; of the others some modules were run."""
    generator = torch.Generator().manual_seed(0)
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    rows, other = 5, torch.arange(len(sizes)) % 3 == 2

    def drawn(columns: int, scale: float) -> Tensor:
        return scale * torch.randn(rows, columns, generator=generator)

    ran = ((torch.rand(rows, len(sizes), generator=generator) < 0.3) & ~other)[:, owner]
    if partly:  # a module that serves tasks of two templates speaks of some labels of its unit
        ran &= torch.rand(ran.shape, generator=generator) < 0.6
    return Evidence(
        torch.log_softmax(drawn(len(owner), 100.0), dim=1).masked_fill(other[owner], -torch.inf),
        torch.log_softmax(drawn(len(owner), 3.0).masked_fill(other[owner], -torch.inf), dim=1),
        torch.log_softmax(drawn(len(sizes), 3.0).masked_fill(other, -torch.inf), dim=1),
        drawn(len(owner), 5.0).masked_fill(~ran, -torch.inf),
        owner,
    )


@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("sizes", [[2] * 320, [1] * 8, [4, 1, 2, 30, 3, 1], [1 + index % 5 for index in range(220)]])
def test_the_calibrated_fusion_is_what_is_written_of_it(sizes: list[int], partly: bool) -> None:
    evidence = many_labels(sizes, partly=partly)
    for fusion in (CalibratedFusion(), CalibratedFusion(temperature=1.0, held_out=400)):
        scores = fusion.log_probabilities(evidence)
        for row in range(len(scores)):
            assert scores[row].tolist() == pytest.approx(as_written(evidence, row, fusion), rel=1e-5, abs=1e-4)


def test_of_very_many_tasks_every_label_that_is_possible_gets_its_share() -> None:
    wide = many_labels([2] * 320, partly=False)
    scores = CalibratedFusion().log_probabilities(wide)
    assert torch.equal(scores > -torch.inf, ~wide.impossible)
    assert scores.exp().sum(dim=1).tolist() == pytest.approx([1.0] * len(scores), abs=1e-5)


def test_a_module_decides_between_the_labels_of_its_task() -> None:
    evidence, targets = informative(200, seed=3, modules=10.0)
    best = CalibratedFusion().log_probabilities(evidence)
    own = best.masked_fill(evidence.owner != evidence.owner[targets].unsqueeze(1), -torch.inf)
    assert float((own.argmax(dim=1) == targets).float().mean()) > 0.95


def product_of(fusion: CalibratedFusion) -> CalibratedFusion:
    """Return a fusion whose scores are the product of experts itself."""
    return replace(fusion, temperature=1.0, held_out=10**40)


def without_doubt(rows: int, seed: int) -> tuple[Evidence, Tensor]:
    """Return evidence in which all experts are right and sure, and the true labels."""
    evidence, targets = informative(rows, seed)
    right = torch.nn.functional.one_hot(targets, 6).float()
    sure = {"lda": evidence.lda + 40 * right, "logistic": 40 * right - 40}
    return replace(evidence, **sure), targets


def scarcely_tested(examples: int, repeated: int = 1) -> CalibratedFusion:
    """Return a fusion fitted on few held-out examples, all of which are answered correctly without doubt."""
    evidence, targets = without_doubt(examples, seed=5)
    rows = torch.arange(examples).repeat(repeated)
    return CalibratedFusion().fit(rows_of(evidence, rows), targets[rows])


def test_few_held_out_examples_bound_the_scores_and_keep_the_order_of_labels() -> None:
    evidence, _ = without_doubt(300, seed=6)
    highest = []
    for examples in (2, 6, 200):
        fusion = scarcely_tested(examples)
        scores, product = fusion.log_probabilities(evidence), product_of(fusion).log_probabilities(evidence)
        assert fusion.held_out == examples
        ranked = scores.gather(1, product.argsort(dim=1, descending=True))
        assert (ranked.diff(dim=1) < 0).all()
        highest.append(float(scores.exp().max()))
    assert highest == sorted(highest)
    assert highest[0] < 0.96
    assert highest[-1] > 0.99


def test_a_held_out_example_counts_once_however_often_it_is_drawn() -> None:
    once, often = scarcely_tested(3), scarcely_tested(3, repeated=60)
    assert once.held_out == often.held_out == 3
    assert often.temperature == pytest.approx(once.temperature, rel=0.3)


def test_held_out_examples_that_are_answered_wrongly_lower_the_scores() -> None:
    evidence, targets = informative(200, seed=7, modules=20.0)
    wrong = targets.clone()
    wrong[::4] = (wrong[::4] + 1) % 6
    honest = CalibratedFusion().fit(evidence, wrong)
    proud = product_of(replace(honest, module=8.0))
    refitted = replace(proud, temperature=honest.temperature, held_out=honest.held_out)
    assert nll(honest, evidence, wrong) < nll(product_of(honest), evidence, wrong) + 0.05
    assert nll(refitted, evidence, wrong) < nll(proud, evidence, wrong)


def without_modules(evidence: Evidence) -> Evidence:
    return replace(evidence, modules=torch.full_like(evidence.modules, -torch.inf))


@pytest.mark.parametrize("threshold", [0.3, 0.9])
def test_an_example_is_decided_without_a_module_if_a_label_is_probable_enough(threshold: float) -> None:
    fusion = CalibratedFusion(config=CalibratedFusion.Config(skip_above=threshold))
    evidence = without_modules(random_evidence(rows=200))
    likeliest = product_of(fusion).log_probabilities(evidence).exp().amax(dim=1)
    assert torch.equal(fusion.decided(evidence), likeliest >= threshold)
    assert 0 < int((likeliest >= 0.3).sum()) < 200
    assert not CalibratedFusion(config=CalibratedFusion.Config(skip_above=None)).decided(evidence).any()
    assert not PaperFusion().decided(evidence).any()


@pytest.mark.parametrize("every", [1, 2, 100])
def test_modules_run_only_on_examples_that_are_not_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    learned = workspace(tmp_path, 3, **{"fusion.skip_above": None})
    texts = [example.text for task in stream() for example in task.test]
    run_on_all = learned.predict(texts)
    runs: list[int] = []
    run = ModulePool.outputs

    def counted(pool: ModulePool, states: Any, requested: Any) -> Any:
        runs.append(sum(map(len, requested)))
        return run(pool, states, requested)

    decided = torch.arange(len(texts)) % every == 0
    monkeypatch.setattr(ModulePool, "outputs", counted)
    monkeypatch.setattr(CalibratedFusion, "decided", lambda *_: decided)
    answers = ConPET.open(learned.path).predict(texts)
    assert sum(runs) == int((~decided).sum())
    assert [answers[row] for row in (~decided).nonzero()] == [run_on_all[row] for row in (~decided).nonzero()]
    assert [answer.score for answer in answers] != [answer.score for answer in run_on_all]


@pytest.mark.parametrize("examples", [20, 200])
def test_fitting_makes_held_out_labels_likelier(examples: int) -> None:
    for seed in range(3):
        fitted = CalibratedFusion().fit(*informative(examples, seed=seed))
        held_out, targets = informative(300, seed=100 + seed)
        assert nll(fitted, held_out, targets) < nll(CalibratedFusion(), held_out, targets)


def test_one_example_moves_the_weights_less_than_many() -> None:
    evidence, targets = informative(200, seed=4)

    def moved(rows: int) -> float:
        fitted = CalibratedFusion().fit(rows_of(evidence, slice(0, rows)), targets[:rows])
        start = CalibratedFusion().to_json()
        return sum(abs(math.log(fitted.to_json()[name] / start[name])) for name in start if name != "held_out")

    assert 0 < moved(1) < moved(200)


def test_fitting_looks_at_the_tasks_that_matter_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    few, targets = informative(60, seed=3)
    rows, many = len(targets), 50
    others = {"lda": -30.0, "logistic": -30.0, "modules": -torch.inf}
    wide = {name: torch.full((rows, 6 + many), value) for name, value in others.items()}
    places = torch.tensor([3, 20, 41, 42, 50, 55])  # a module's labels may stand apart
    for name, scores in wide.items():
        scores[:, places] = getattr(few, name)
    tasks = torch.full((rows, 3 + many), -40.0)
    tasks[:, [7, 1, 30]] = few.tasks
    owner = torch.zeros(6 + many, dtype=torch.int64)
    unused = [task for task in range(3 + many) if task not in (7, 1, 30)]
    owner[[place for place in range(6 + many) if place not in places]] = torch.tensor(unused)
    owner[places] = torch.tensor([7, 7, 1, 1, 30, 30])
    evidence = Evidence(**wide, tasks=tasks, owner=owner)
    narrow = CalibratedFusion().fit(evidence, places[targets])
    monkeypatch.setattr(calibrated, "CANDIDATES", 100)
    whole = CalibratedFusion().fit(evidence, places[targets])
    assert narrow.to_json() == pytest.approx(whole.to_json(), rel=0.02)
    assert narrow.to_json() == pytest.approx(CalibratedFusion().fit(few, targets).to_json(), rel=0.02)


def test_fitting_survives_examples_nobody_can_explain() -> None:
    evidence = random_evidence(rows=20)
    targets = torch.full((20,), 6)  # a label of another kind: its probability is 0 whatever the weights
    fitted = CalibratedFusion().fit(evidence, targets)
    assert all(math.isfinite(weight) for weight in fitted.to_json().values())


@pytest.mark.parametrize("template", [None, "{text} wants"])
def test_teacher_forcing_trains_beside_the_tasks_the_selector_would_take(
    template: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At k=2 the new module learns beside one older task: the likelier one, whatever the selector thinks of its own."""
    given: list[TrainingJob] = []
    train = dynamic.train_modules

    def spied(backbone: Any, jobs: list[TrainingJob], **more: Any) -> Any:
        given.extend(jobs)
        return train(backbone, jobs, **more)

    learner = workspace(tmp_path, 2, fusion="paper", selector={"top_k": 2})
    newest = replace(stream()[2], template=template)
    monkeypatch.setattr(dynamic, "train_modules", spied)
    learner.learn(newest, evaluate=False)

    after = live_of(learner)
    inputs = encoded(after, newest.train)
    ranking = after.method.score(after.state, inputs, newest.kind).tasks
    assert ranking is not None
    older = after.state.tasks[:2]
    pool = ModulePool(learner.backbone)
    (job,) = given
    assert job.competing_logits is not None
    for row in range(len(newest.train)):
        rival = int(ranking[row, :2].argmax())
        module = StoredModule.of(older[rival].objects[MODULE])
        logits = pool.outputs(inputs[None].select([row]), [[module]])[0][module].tolist()
        expected = [UNSELECTED] * 4
        expected[2 * rival : 2 * rival + 2] = logits
        assert job.competing_logits[row].tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "settings", [{"fusion": "paper", "selector": {"top_k": 1}}, {"fusion": "calibrated", "selector": {"top_k": 2}}]
)
def test_modules_learn_alone_where_no_other_logits_stand_beside_theirs(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[TrainingJob] = []
    train = dynamic.train_modules
    learner = workspace(tmp_path, 1, **settings)
    monkeypatch.setattr(dynamic, "train_modules", lambda a, some, **more: given.extend(some) or train(a, some, **more))
    learner.learn(stream()[1], evaluate=False)
    assert [job.competing_logits for job in given] == [None]

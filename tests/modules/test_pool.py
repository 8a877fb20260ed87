"""The module pool: rows of one batch with different modules get what plain PEFT gives, in every mixture and thread."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Barrier

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn

from conpet.artifact import Artifact, ArtifactReader, InMemoryObject, write_artifact
from conpet.backbone import backbone as backbone_module
from conpet.backbone.backbone import Backbone
from conpet.backbone.states import Batching, States
from conpet.config import Settings
from conpet.cost import metered
from conpet.errors import BackboneError, CorruptionError
from conpet.modules.adapter import ADAPTER_TENSORS
from conpet.modules.batched_linear import BatchedLinear
from conpet.modules.module import PetModule, StoredModule
from conpet.modules.pool import ModulePool
from tests.helpers.backbones import EXAMPLES, custom_model, tiny_backbone, tiny_loaded, tiny_model
from tests.helpers.modules import artifact

N = len(EXAMPLES)
SHAPES: dict[str, list[dict[str, object]]] = {
    "llama": [
        {},
        {"module": {"rank": 1, "targets": ("q_proj", "v_proj")}},
        {"module": {"rank": 7, "alpha": 3.0}},
        {"module": {"targets": ("down_proj",)}},
        {"module": {"rank": 4, "targets": ("gate_proj", "k_proj"), "alpha": 1.0}},
    ],
    "bert": [
        {},
        {"module": {"rank": 1, "targets": ("query", "value")}},
        {"module": {"rank": 7, "alpha": 3.0}},
        {"module": {"targets": ("dense",)}},
    ],
    "mpnet": [{}, {"module": {"rank": 1, "targets": ("q", "v")}}, {"module": {"targets": ("dense",)}}],
}


def random_artifact(backbone: Backbone, seed: int, labels: int = 3, **values: object) -> Artifact:
    """Return a module none of whose maps is zero, with a random head."""
    module = PetModule(backbone, Settings.parse({"module": {"rank": 3}}).for_task(values), seed)
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(backbone.representation_size, labels)
    with torch.no_grad():
        for parameter in [*module.parameters.values(), *head.parameters()]:
            parameter.normal_(std=0.2, generator=generator)
    return artifact(module, head)


class Workbench:
    """Modules of mixed shapes on disk, and what plain PEFT makes of every example with each of them."""

    def __init__(self, architecture: str, folder: Path) -> None:
        self.backbone = tiny_backbone(architecture, frozen_layers=2)
        self.states = self.backbone.states(EXAMPLES)
        self.modules: list[StoredModule] = []
        for number, shape in enumerate(SHAPES[architecture]):
            path = folder / str(number)
            manifest = write_artifact(path, random_artifact(self.backbone, number, labels=number + 2, **shape))
            self.modules.append(StoredModule.of(ArtifactReader(path, manifest)))
        self.expected = {module: self._by_peft(architecture, module) for module in self.modules}

    @torch.no_grad()
    def _by_peft(self, architecture: str, module: StoredModule) -> Tensor:
        peft = PeftModel.from_pretrained(tiny_model(architecture), module.reader.folder).eval()
        batch = self.states.collate(range(N), pad=1, device=self.backbone.device)
        hidden = peft(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        head = module.reader.tensors("head")
        return nn.functional.linear(self.backbone.pooling(hidden, batch), head["weight"], head["bias"])

    def check(
        self, pool: ModulePool, wanted: Sequence[Sequence[StoredModule]], rows: Sequence[int] | None = None
    ) -> None:
        rows = range(N) if rows is None else rows
        found = pool.outputs(self.states.select(rows), wanted)
        assert [set(one) for one in found] == [set(keys) for keys in wanted]
        for row, logits in zip(rows, found, strict=True):
            for module, values in logits.items():
                torch.testing.assert_close(values, self.expected[module][row], rtol=0, atol=1e-5)


@pytest.fixture(scope="module", params=list(SHAPES))
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench(request.param, tmp_path_factory.mktemp(request.param))


def test_modules_give_what_plain_peft_gives_one_at_a_time(bench: Workbench) -> None:
    pool = ModulePool(bench.backbone)
    for module in bench.modules:
        bench.check(pool, [[module]] * N)
    base = bench.backbone.pooling(
        bench.backbone.suffix()(
            (batch := bench.states.collate(range(N), pad=1, device=torch.device("cpu"))).ids, batch.mask, batch.hidden
        ),
        batch,
    )
    head = bench.modules[0].reader.tensors("head")
    plain = nn.functional.linear(base, head["weight"], head["bias"])
    assert (plain - bench.expected[bench.modules[0]]).abs().max() > 0.1  # the modules do something


def test_rows_of_one_batch_use_any_mixture_of_modules(bench: Workbench) -> None:
    pool, every = ModulePool(bench.backbone), bench.modules
    bench.check(pool, [[every[row % len(every)]] for row in range(N)])
    bench.check(pool, [every] * N)
    bench.check(pool, [every[::-1]] * N)
    bench.check(pool, [[], [every[1]], [], every[1:3], []])
    assert pool.outputs(bench.states, [[]] * N) == [{}] * N
    assert pool.outputs(bench.states.select([]), []) == []


def test_one_pass_serves_all_modules_of_a_batch(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone_module, "ON_CPU", Batching(tokens=2048, per_pass=2048))
    pool = ModulePool(bench.backbone)
    pool.outputs(bench.states, [bench.modules] * N)
    passes: list[int] = []
    monkeypatch.setattr(pool._suffix, "__class__", counting(type(pool._suffix), passes))
    with metered() as costs:
        bench.check(pool, [bench.modules] * N)
    (rows,) = passes
    assert N * len(bench.modules) <= rows < 2 * N * len(bench.modules)  # filled up
    tokens = sum(len(one.ids) for one in bench.states.encoded)
    assert costs.tokens == tokens * len(bench.modules) / 2


def counting(suffix: type, passes: list[int]) -> type:
    class Counting(suffix):
        def __call__(self, ids: Tensor, mask: Tensor, states: Tensor | None) -> Tensor:
            passes.append(len(ids))
            return super().__call__(ids, mask, states)

    return Counting


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_more_modules_than_fit_take_turns(bench: Workbench, capacity: int) -> None:
    pool = ModulePool(bench.backbone, capacity=capacity, kept_bytes=0)
    draw = random.Random(capacity)
    for _ in range(6):
        bench.check(pool, [draw.sample(bench.modules, draw.randint(0, len(bench.modules))) for _ in range(N)])
        assert len(pool._resident) <= capacity


def test_modules_beyond_a_pass_are_kept_as_memory_allows(bench: Workbench) -> None:
    alike = [StoredModule.of(InMemoryObject(random_artifact(bench.backbone, seed))) for seed in range(9)]
    one = sum(tensor.numel() * 4 for tensor in alike[0].adapter().tensors.values())
    pool = ModulePool(bench.backbone, capacity=2, kept_bytes=6 * one)
    for _ in range(2):
        pool.outputs(bench.states.select([0]), [alike])
        assert len(pool._resident) == 6
    expected = pool.outputs(bench.states, [[alike[0]]] * N)
    large = StoredModule.of(
        InMemoryObject(random_artifact(bench.backbone, 9, module={"rank": 6}))
    )  # twice the room, so half as many
    pool.outputs(bench.states, [[large]] * N)
    pool.outputs(bench.states.select([0]), [alike])
    assert len(pool._resident) == 3
    again = pool.outputs(bench.states, [[alike[0]]] * N)
    torch.testing.assert_close([one[alike[0]] for one in again], [one[alike[0]] for one in expected])


def test_long_batches_are_cut_into_several_passes(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone_module, "ON_CPU", Batching(tokens=40, per_pass=8))
    bench.check(ModulePool(bench.backbone), [bench.modules] * N)


@pytest.mark.parametrize("capacity", [2, 64])
def test_threads_ask_one_pool_for_different_modules_at_once(bench: Workbench, capacity: int) -> None:
    pool = ModulePool(bench.backbone, capacity=capacity, kept_bytes=0)
    together = Barrier(6)

    def ask(number: int) -> None:
        draw = random.Random(number)
        together.wait()
        for _ in range(8):
            rows = draw.sample(range(N), draw.randint(1, N))
            bench.check(pool, [draw.sample(bench.modules, draw.randint(1, 3)) for _ in rows], rows)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(ask, range(6)))
    assert not any(resident.users for resident in pool._resident.values())


def test_a_model_of_flat_tokens_keeps_rows_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone("llama", frozen_layers=2)
    states = backbone.states(EXAMPLES)
    modules = [
        StoredModule.of(InMemoryObject(random_artifact(backbone, seed, module={"targets": ("o_proj",)})))
        for seed in range(3)
    ]
    wanted = [[modules[row % 3]] for row in range(N)]
    expected = ModulePool(backbone).outputs(states, wanted)
    pool = ModulePool(backbone)
    pool.outputs(states, wanted)
    batched = BatchedLinear.forward
    monkeypatch.setattr(  # as some architectures do: all tokens of all rows in one list
        BatchedLinear, "forward", lambda self, x: batched(self, x.flatten(0, 1)).view(*x.shape[:2], -1)
    )
    found = pool.outputs(states, wanted)
    for one, other in zip(expected, found, strict=True):
        for module in one:
            torch.testing.assert_close(other[module], one[module], rtol=0, atol=1e-5)
    # An expert that sees only some of the tokens cannot know whose they are.
    monkeypatch.setattr(BatchedLinear, "forward", lambda self, x: batched(self, x.flatten(0, 1)[:-1]))
    with pytest.raises(BackboneError, match=r"Leave this map out of module\.targets"):
        pool.outputs(states, wanted)


def test_a_model_that_cannot_be_cut_runs_many_modules_too() -> None:
    backbone = Backbone(tiny_loaded(model=custom_model("named")))
    states = backbone.states(EXAMPLES)
    modules = [StoredModule.of(InMemoryObject(random_artifact(backbone, seed))) for seed in range(3)]
    pool = ModulePool(backbone)
    alone = [pool.outputs(states.select([row]), [modules])[0] for row in range(N)]
    for one, other in zip(alone, pool.outputs(states, [modules] * N), strict=True):
        assert all(torch.allclose(one[module], other[module], rtol=0, atol=1e-5) for module in modules)


def test_a_damaged_module_is_refused_and_the_pool_goes_on() -> None:
    backbone = tiny_backbone("llama", frozen_layers=2)
    states = backbone.states(EXAMPLES[:1])
    good = StoredModule.of(InMemoryObject(random_artifact(backbone, 0)))
    below = StoredModule.of(InMemoryObject(random_artifact(tiny_backbone("llama", frozen_layers=1), 0)))
    torn = random_artifact(backbone, 1)
    torn = Artifact(tensors={**torn.tensors, "head": {"weight": torch.zeros(1)}}, documents=torn.documents)
    pool = ModulePool(backbone)
    before = pool.outputs(states, [[good]])[0][good]
    with pytest.raises(CorruptionError, match="not a linear map above the cut"):
        pool.outputs(states, [[good, below]])
    with pytest.raises(CorruptionError, match="missing or unexpected"):
        pool.outputs(states, [[StoredModule.of(InMemoryObject(torn))]])
    assert torch.equal(pool.outputs(states, [[good]])[0][good], before)


@cache
def llama_states() -> tuple[Backbone, States]:
    backbone = tiny_backbone("llama", frozen_layers=2)
    return backbone, backbone.states(EXAMPLES)


def test_the_least_recently_used_module_leaves_first() -> None:
    backbone, states = llama_states()
    reads: list[int] = []

    class Counted(InMemoryObject):
        def __init__(self, number: int) -> None:
            super().__init__(random_artifact(backbone, number))
            self.number = number

        def tensors(self, stem: str) -> dict[str, Tensor]:
            if stem == ADAPTER_TENSORS:
                reads.append(self.number)
            return super().tensors(stem)

    first, second, third = (StoredModule.of(Counted(number)) for number in range(3))
    pool = ModulePool(backbone, capacity=2, kept_bytes=0)
    for module in (first, second, first, third, first, second):
        pool.outputs(states.select([0]), [[module]])
    assert reads == [0, 1, 2, 1]

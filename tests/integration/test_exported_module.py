"""An exported module of a real backbone gives conpet's logits in plain PEFT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conpet import ConPET
from conpet.backbone.embedded import ensure
from conpet.testing import toy_stream
from tests.helpers.exported import examples_of, logits_of, script_of

pytestmark = pytest.mark.integration

TEXTS = ("tell me the weather", "x [MASK] y", "word and more " * 100)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("module", ["lora", "ia3"])
def test_the_script_gives_the_logits_on_minilm(tmp_path: Path, module: str) -> None:
    learner = ConPET.create(
        tmp_path / "ws", "minilm-l6", module={"kind": module}, training={"epochs": 2, "learning_rate": 0.01}
    )
    (task,) = toy_stream(1, 2, 8, 0, 0)
    learner.learn(task, evaluate=False)
    script = script_of(learner.export(task.name, tmp_path / "out"))
    loaded = script.load(str(ensure("minilm-l6")))
    expected = logits_of(learner, 0, examples_of(TEXTS))
    assert expected[0].abs().max() > 0.1
    for text, logits in zip(TEXTS, expected, strict=True):
        torch.testing.assert_close(script.logits(*loaded, text), logits, rtol=0, atol=0.02)  # bfloat16

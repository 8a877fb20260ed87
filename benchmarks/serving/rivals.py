"""The rivals: the server that one would write on plain Transformers or PEFT, with the same FastAPI and uvicorn.

python -m benchmarks.serving.rivals KIND BACKBONE MODULES

- plain: a forward pass for a request, then a linear map over all labels.
- loop: a forward pass for each text of a request.
- peft: the request names its task; `set_adapter`, then a forward pass, then the task's head.

They have conpet's weights, token ids, number format and pooling, and the modules that it exports. A request is answered
in the event loop, one after another: with threads, forward passes would compete for the cores.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

import torch
import uvicorn
from fastapi import FastAPI, Header
from peft import PeftModel
from pydantic import BaseModel
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.speed.rivals import Padded, exported_labels, hidden_of, no_cache, plain_model, represent
from conpet import Example
from conpet.backbone.load import load_backbone
from conpet.backbone.states import pad_ids

Head = tuple[Tensor, Tensor, list[str]]
TOP = 3


class Request(BaseModel):
    """The body of a request."""

    inputs: list[str]


class Rival:
    """A model behind a server.

    Args:
        kind: "plain", "loop" or "peft".
        backbone: Name of the backbone.
        modules: Folder of exported modules, by task.
    """

    def __init__(self, kind: str, backbone: str, modules: Path) -> None:
        self._kind = kind
        self._loaded = load_backbone(backbone, dtype="auto", device="cpu")
        self._model: Any = plain_model(self._loaded)
        self._tokens = json.loads(next(modules.glob("*/inference.json")).read_text())["max_tokens"]
        self._heads = {folder.name: _head(folder) for folder in sorted(modules.iterdir())}
        if kind == "peft":
            first, *others = self._heads
            self._model = PeftModel.from_pretrained(self._model, modules / first, adapter_name=first)
            for name in others:
                self._model.load_adapter(modules / name, adapter_name=name)
            self._model.to(self._loaded.dtype)
        weights, biases, labels = zip(*self._heads.values(), strict=True)
        self._all = torch.cat(weights), torch.cat(biases), [label for some in labels for label in some]
        self._model.eval()

    def answer(self, texts: Sequence[str], task: str) -> list[dict[str, Any]]:
        """Return the likeliest labels of each text."""
        if self._kind == "peft":
            self._model.set_adapter(task)
            return self._forward(texts, self._heads[task])
        if self._kind == "loop":
            return [one for text in texts for one in self._forward([text], self._all)]
        return self._forward(texts, self._all)

    def _forward(self, texts: Sequence[str], head: Head) -> list[dict[str, Any]]:
        encoded = self._loaded.encoder.encode([Example.of_text(text) for text in texts], None, self._tokens)
        ids, mask = pad_ids(encoded, self._loaded.encoder.pad)
        batch = Padded(ids, mask, torch.tensor([one.slot for one in encoded]), list(range(len(texts))))
        weight, bias, labels = head
        with torch.inference_mode():
            hidden = hidden_of(self._model, batch, **no_cache(self._model))
            best = nn.functional.linear(represent(hidden, batch), weight, bias).softmax(1).topk(min(TOP, len(labels)))
        return [
            {"labels": [labels[column] for column in columns], "scores": scores}
            for columns, scores in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def _head(folder: Path) -> Head:
    tensors = load_file(folder / "head.safetensors")
    return tensors["weight"].float(), tensors["bias"].float(), exported_labels(folder)


def application(rival: Rival) -> FastAPI:
    """Return the application."""
    app = FastAPI()

    @app.post("/v1/predict")
    async def predict(request: Request, task: Annotated[str, Header()] = "") -> list[dict[str, Any]]:
        return rival.answer(request.inputs, unquote(task))

    return app


def serve(kind: str, backbone: str, modules: Path, ready: Callable[[int, uvicorn.Server], None]) -> None:
    """Serve on a free port; `ready` is told which, when the model is loaded."""
    rival = Rival(kind, backbone, modules)
    rival.answer(["warm up"], next(iter(rival._heads)))
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        server = uvicorn.Server(uvicorn.Config(application(rival), log_level="error"))
        ready(listening.getsockname()[1], server)
        server.run(sockets=[listening])


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], Path(sys.argv[3]), lambda port, _: print(json.dumps({"port": port}), flush=True))

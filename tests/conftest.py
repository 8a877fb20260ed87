"""Settings of every test run."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Before torch and the tokenizers are imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small models: threads would only wait for one another
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# No deadline: on a busy machine an example may take any time. On a build machine the examples are always the same.
settings.register_profile("conpet", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("conpet")


gc.disable()  # while everything is imported


def pytest_collection_finish() -> None:
    """Leave what was imported (a million objects) out of all later garbage collections."""
    gc.freeze()
    gc.enable()


INTEGRATION = Path(__file__).parent / "integration"


@pytest.fixture(scope="session")
def unit_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `CONPET_HOME` that all tests but the integration tests share."""
    return tmp_path_factory.mktemp("conpet-home")


@pytest.fixture(scope="module", autouse=True)
def _home(request: pytest.FixtureRequest, unit_home: Path) -> Iterator[None]:
    """Keep the user's own home out of the tests; integration tests use it, so that models are fetched once."""
    with pytest.MonkeyPatch.context() as patch:
        if INTEGRATION not in request.path.parents:
            patch.setenv("CONPET_HOME", str(unit_home))
        yield


@pytest.fixture(scope="session", autouse=True)
def _tiny_backbone_loaded_once() -> Iterator[None]:
    """Let all workspaces of this process share the weights of `tiny-random`: loading takes longer than most tests."""
    if "conpet.state.live" not in sys.modules:  # no test module that was collected opens a workspace
        yield
        return
    from conpet.backbone.load import load_backbone
    from conpet.backbone.tiny import TINY_RANDOM
    from conpet.home import conpet_home

    @cache
    def tiny(_home: Path, **options: Any) -> Any:
        return load_backbone(TINY_RANDOM, **options)

    def load(name: str, *, progress: Any = None, **options: Any) -> Any:
        if name == TINY_RANDOM:
            return tiny(conpet_home(), **options)
        return load_backbone(name, progress=progress, **options)

    with pytest.MonkeyPatch.context() as patch:
        for module in ("conpet.api", "conpet.state.live"):
            patch.setattr(f"{module}.load_backbone", load)
        yield

"""Settings of every test run."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

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

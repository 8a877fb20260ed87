"""The limit of compiled kernels is set for users who set none; memory is released on every C library."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from conpet.resident import MOST_KERNELS, limit_kernels, release_unused

LIMIT = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
RELEASES = """
from pathlib import Path
from conpet.resident import release_unused

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

parts = [bytearray(100_000) for _ in range(2000)]
kept = parts[::2]
del parts
held = resident()
release_unused()
print(held - resident())
"""


@pytest.mark.parametrize("own", [None, "7"])
def test_kernels_are_limited_unless_the_user_did(own: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT, raising=False)
    if own is not None:
        monkeypatch.setenv(LIMIT, own)
    limit_kernels()
    assert os.environ[LIMIT] == (own or str(MOST_KERNELS))


def test_freed_memory_goes_back_to_the_system() -> None:
    release_unused()  # with any C library
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc keeps freed memory")
    done = subprocess.run([sys.executable, "-c", RELEASES], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 50_000_000

"""The limit of compiled kernels is set for users who set none; memory is released on every C library."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from conpet.resident import MOST_KERNELS, limit_kernels, release_unused

LIMITS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": MOST_KERNELS, "LRU_CACHE_CAPACITY": 16}
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
MULTIPLIES = """
import ctypes
import torch
from torch import nn
from conpet.backbone.frozen_linear import with_frozen_maps
from conpet.resident import limit_kernels

class Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena a b c mapped d e used f g").split()]

def used():
    read = ctypes.CDLL(None).mallinfo2
    read.restype = Memory
    now = read()
    return now.used + now.mapped

limit_kernels()
tree = with_frozen_maps(nn.Sequential(nn.Linear(32, 32)).bfloat16().requires_grad_(False))
for start in (1, 200):
    for rows in range(start, start + 199):
        tree(torch.zeros(rows, 32, dtype=torch.bfloat16))
    print(used())
"""


@pytest.mark.parametrize("own", [None, "7"])
def test_kernels_are_limited_unless_the_user_did(own: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)
        if own is not None:
            monkeypatch.setenv(name, own)
    limit_kernels()
    assert {name: os.environ[name] for name in LIMITS} == {name: own or str(most) for name, most in LIMITS.items()}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory in use is read from glibc")
def test_products_of_ever_more_sizes_take_no_more_memory() -> None:
    done = subprocess.run([sys.executable, "-c", MULTIPLIES], capture_output=True, text=True, check=True)
    first, more = map(int, done.stdout.split())
    assert more - first < 10_000_000


def test_freed_memory_goes_back_to_the_system() -> None:
    release_unused()  # with any C library
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc keeps freed memory")
    done = subprocess.run([sys.executable, "-c", RELEASES], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 50_000_000

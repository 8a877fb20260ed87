from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
import torch

from conpet.backbone import cache_file
from conpet.backbone.cache import CachedState, StateCache
from conpet.cost import metered
from conpet.errors import ConfigError

FORK = multiprocessing.get_context("fork")
AMPLE = 64 << 20


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def state(number: int, *, tokens: int = 15, width: int = 64, dtype: torch.dtype = torch.bfloat16) -> CachedState:
    generator = torch.Generator().manual_seed(number)
    hidden = torch.randn(tokens, width, generator=generator).to(dtype)
    return CachedState(hidden, torch.randn(2 * width, generator=generator))


def fill(cache: StateCache, numbers: range) -> None:
    cache.put_many((key(number), state(number)) for number in numbers)


def found(cache: StateCache, numbers: range) -> set[int]:
    """Which numbers are there; every one that is must be exactly what was put."""
    rows = cache.get_many([key(number) for number in numbers])
    present = {number for number in numbers if key(number) in rows}
    for number in present:
        assert same(rows[key(number)], state(number))
    return present


def same(one: CachedState, other: CachedState) -> bool:
    pairs = ((one.hidden, other.hidden), (one.features, other.features))
    return all(a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in pairs)


@contextmanager
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "states.sqlite"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("tokens", "features"), [(1, 3), (15, 0), (200, 1152)])
def test_returns_the_very_bits_that_were_put(path: Path, dtype: torch.dtype, tokens: int, features: int) -> None:
    hidden = torch.randn(tokens, 48).to(dtype)
    hidden[0, :3] = torch.tensor([float("nan"), float("-inf"), -0.0])
    put = CachedState(hidden, torch.randn(features))
    with StateCache(path, limit_bytes=AMPLE) as cache:
        cache.put_many([(key(0), put)])
    with StateCache(path, limit_bytes=AMPLE) as cache:
        got = cache.get_many([key(0)])[key(0)]
    assert got.hidden.shape == hidden.shape
    assert got.features.shape == (features,)
    assert same(got, put)


def test_what_is_got_may_be_changed_without_changing_the_cache(path: Path) -> None:
    with StateCache(path, limit_bytes=AMPLE) as cache:
        fill(cache, range(1))
        got = cache.get_many([key(0)])[key(0)]
        got.hidden.zero_()
        got.features.zero_()
        assert found(cache, range(1)) == {0}


def test_stores_a_view_of_a_larger_tensor(path: Path) -> None:
    batch = torch.randn(4, 9, 8)
    with StateCache(path, limit_bytes=AMPLE) as cache:
        cache.put_many([(key(0), CachedState(batch[2, :5], batch[:, 0, 0]))])
        got = cache.get_many([key(0)])[key(0)]
    assert torch.equal(got.hidden, batch[2, :5])
    assert torch.equal(got.features, batch[:, 0, 0])


def test_counts_hits_and_lookups(path: Path) -> None:
    with StateCache(path, limit_bytes=AMPLE) as cache, metered() as costs:
        assert costs.hit_rate == 0.0
        fill(cache, range(3))
        found(cache, range(4))
        assert (costs.cache_hits, costs.cache_lookups, costs.hit_rate, cache.entries) == (3, 4, 0.75, 3)
        assert cache.get_many([]) == {}


def test_more_keys_than_one_query_takes(path: Path) -> None:
    with StateCache(path, limit_bytes=AMPLE) as cache:
        cache.put_many((key(number), state(number, tokens=1, width=4)) for number in range(1200))
        assert len(cache.get_many([key(number) for number in range(1200)])) == 1200


def test_an_entry_that_has_become_another_keys_meanwhile_is_a_miss(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with StateCache(path, limit_bytes=1 << 20) as cache, metered() as costs:
        cache.put_many([(key(1), state(1)), (key(2), state(2))])
        everything = cache_file.locate(cache._open(), [key(1), key(2)])
        monkeypatch.setattr(StateCache, "_located", lambda self, keys: everything)
        assert list(cache.get_many([key(2)])) == [key(2)]
        assert cache.get_many([key(3)]) == {}
        assert (costs.cache_hits, costs.cache_lookups) == (1, 2)


def test_a_key_that_is_there_keeps_what_it_has(path: Path) -> None:
    with StateCache(path, limit_bytes=AMPLE) as cache:
        fill(cache, range(1))
        cache.put_many([(key(0), state(99))])
        assert found(cache, range(1)) == {0}
        assert cache.entries == 1


def test_those_used_longest_ago_make_room(path: Path) -> None:
    clock = Clock()
    with StateCache(path, limit_bytes=200_000, clock=clock) as cache:
        for number in range(40):
            clock.now += 100
            fill(cache, range(number, number + 1))
        clock.now += 100
        assert found(cache, range(40)) == set(range(40))  # all fit so far
        clock.now += 100
        assert found(cache, range(5)) == {0, 1, 2, 3, 4}  # the five oldest are used again
        clock.now += 100
        fill(cache, range(100, 120))
        left = found(cache, range(40))
        assert 15 < len(left) < 40
        assert {0, 1, 2, 3, 4} <= left
        assert left - set(range(5)) == set(range(40 - len(left) + 5, 40))
        assert found(cache, range(100, 120)) == set(range(100, 120))


def test_the_file_stays_within_the_limit_however_much_is_put(path: Path) -> None:
    limit = 300_000
    with StateCache(path, limit_bytes=limit) as cache:
        for start in range(0, 600, 30):
            fill(cache, range(start, start + 30))
            assert cache.bytes_used <= limit
        assert cache.entries > 40
        assert 599 in found(cache, range(600))
    assert path.stat().st_size <= limit


def test_a_smaller_limit_shrinks_an_existing_file(path: Path) -> None:
    with StateCache(path, limit_bytes=AMPLE) as cache:
        fill(cache, range(200))
    with StateCache(path, limit_bytes=150_000) as cache:
        assert 20 < cache.entries < 200
    assert path.stat().st_size <= 150_000


def test_a_state_larger_than_the_limit_is_left_out(path: Path) -> None:
    with StateCache(path, limit_bytes=100_000) as cache:
        fill(cache, range(1))
        cache.put_many([(key(7), state(7, tokens=900))])
        assert cache.get_many([key(7)]) == {}
        assert found(cache, range(1)) == {0}


def test_clear_gives_the_space_back(path: Path) -> None:
    with StateCache(path, limit_bytes=AMPLE) as cache:
        fill(cache, range(200))
        before = cache.bytes_used
        cache.clear()
        assert cache.entries == 0
        assert cache.bytes_used < before / 10
        assert found(cache, range(200)) == set()
    assert path.stat().st_size < before / 10


def test_rejects_a_limit_of_nothing_and_states_it_cannot_hold(path: Path) -> None:
    with pytest.raises(ConfigError, match="limit_bytes is 0"):
        StateCache(path, limit_bytes=0)
    with StateCache(path, limit_bytes=AMPLE) as cache, pytest.raises(TypeError, match="float64"):
        cache.put_many([(key(0), state(0, dtype=torch.float64))])


def test_threads_share_one_cache(path: Path) -> None:
    with StateCache(path, limit_bytes=AMPLE) as cache:
        threads = [threading.Thread(target=fill, args=(cache, range(n * 50, n * 50 + 60))) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found(cache, range(210)) == set(range(210))


def test_processes_forked_from_one_that_uses_it_write_at_once(path: Path) -> None:
    with StateCache(path, limit_bytes=AMPLE) as cache:
        fill(cache, range(10))

        def write(start: int) -> None:
            for first in range(start, start + 100, 5):
                fill(cache, range(first, first + 5))
            os._exit(0 if found(cache, range(10)) == set(range(10)) else 1)

        children = [FORK.Process(target=write, args=(start,)) for start in (10, 60, 110)]
        for child in children:
            child.start()
        fill(cache, range(300, 350))
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0, 0, 0]
        assert found(cache, range(400)) == set(range(210)) | set(range(300, 350))


@pytest.mark.parametrize("seconds", [0.02, 0.07, 0.15])
def test_a_process_killed_while_it_writes_leaves_a_sound_cache(path: Path, seconds: float) -> None:
    def write_for_ever() -> None:
        with StateCache(path, limit_bytes=400_000) as cache:
            for start in cycle(
                range(0, 3000, 20)
            ):  # again and again: a quick machine must not run past what is asked for
                fill(cache, range(start, start + 20))

    child = FORK.Process(target=write_for_ever)
    child.start()
    while not path.exists() or path.stat().st_size < 100_000:
        time.sleep(0.005)
    time.sleep(seconds)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    with no_warnings(), StateCache(path, limit_bytes=400_000) as cache:
        assert cache.entries > 10
        assert len(found(cache, range(3000))) > 10
        fill(cache, range(-20, 0))
        assert found(cache, range(-20, 0)) == set(range(-20, 0))


def test_a_file_of_garbage_is_made_anew_with_a_warning(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(random.Random(0).randbytes(50_000))
    with StateCache(path, limit_bytes=AMPLE) as cache:
        with pytest.warns(RuntimeWarning, match="was damaged"):
            assert cache.get_many([key(0)]) == {}
        fill(cache, range(5))
        assert found(cache, range(5)) == set(range(5))


def test_a_database_that_is_not_ours_is_made_anew(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (id)")
        other.execute("PRAGMA user_version = 77")
    other.close()
    with StateCache(path, limit_bytes=AMPLE) as cache:
        with pytest.warns(RuntimeWarning, match="schema version is 77"):
            fill(cache, range(5))
        assert found(cache, range(5)) == set(range(5))


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.95])
def test_a_truncated_file_costs_states_but_raises_nothing(path: Path, share: float) -> None:
    with StateCache(path, limit_bytes=AMPLE) as cache:
        fill(cache, range(100))
    with path.open("r+b") as handle:
        handle.truncate(int(path.stat().st_size * share))
    with StateCache(path, limit_bytes=AMPLE) as cache:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found(cache, range(100))
            fill(cache, range(100, 110))
        fill(cache, range(100, 110))
        assert found(cache, range(100, 110)) == set(range(100, 110))


@pytest.mark.filterwarnings("ignore:the state cache")
@pytest.mark.parametrize("seed", range(25))
def test_flipped_bytes_never_give_a_wrong_state_nor_an_error(path: Path, seed: int) -> None:
    with StateCache(path, limit_bytes=AMPLE) as cache:
        fill(cache, range(40))
    chance = random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(60):
        # Most of the file is states: half of the flips go where the tables are described.
        place = chance.randrange(chance.choice([8192, len(content)]))
        content[place] = chance.randrange(256)
    path.write_bytes(content)
    with StateCache(path, limit_bytes=250_000) as cache:
        found(cache, range(40))
        for start in range(40, 200, 40):
            fill(cache, range(start, start + 40))
            found(cache, range(200))


@pytest.mark.filterwarnings("ignore:the state cache")
def test_a_file_damaged_while_it_is_open_is_made_anew(path: Path) -> None:
    with StateCache(path, limit_bytes=AMPLE) as cache:
        fill(cache, range(200))
        cache.close()
        assert cache.entries == 200  # opens again
        with path.open("r+b") as handle:
            handle.seek(4096)
            handle.write(b"\xff" * (path.stat().st_size - 4096))
        assert found(cache, range(200)) == set()
        fill(cache, range(5))
        assert found(cache, range(5)) == set(range(5))


def test_a_damaged_row_is_a_miss_and_removed(path: Path) -> None:
    with StateCache(path, limit_bytes=AMPLE) as cache:
        fill(cache, range(3))
    with sqlite3.connect(path) as direct:
        direct.execute("UPDATE blobs SET blob = zeroblob(length(blob)) WHERE id = 1")
        direct.execute("UPDATE blobs SET blob = (SELECT blob FROM blobs WHERE id = 3) WHERE id = 2")
    direct.close()
    with StateCache(path, limit_bytes=AMPLE) as cache:
        with metered() as costs:
            assert found(cache, range(3)) == {2}
        assert (costs.cache_hits, costs.cache_lookups, cache.entries) == (1, 3, 1)
        fill(cache, range(3))
        assert found(cache, range(3)) == {0, 1, 2}


def test_where_no_file_can_be_made_there_is_one_warning_and_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with StateCache(tmp_path / "file" / "states.sqlite", limit_bytes=AMPLE) as cache:
        with pytest.warns(RuntimeWarning, match="CONPET_HOME"):
            fill(cache, range(3))
        with no_warnings():
            assert found(cache, range(3)) == set()
            assert (cache.entries, cache.bytes_used) == (0, 0)
            cache.clear()


def test_on_a_read_only_file_what_is_there_is_still_found(path: Path) -> None:
    with StateCache(path, limit_bytes=AMPLE) as cache:
        fill(cache, range(3))

    def connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA query_only = ON")
        return connection

    with StateCache(path, limit_bytes=AMPLE, connect=connect) as cache:
        with pytest.warns(RuntimeWarning, match="no more states are cached"):
            fill(cache, range(3, 6))
        with no_warnings():
            fill(cache, range(6, 9))
            assert found(cache, range(9)) == {0, 1, 2}


def test_on_a_full_disk_what_is_there_is_still_found(path: Path) -> None:
    def connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA max_page_count = 60")
        return connection

    with StateCache(path, limit_bytes=AMPLE, connect=connect) as cache:
        fill(cache, range(20))
        with pytest.warns(RuntimeWarning, match="full"):
            fill(cache, range(20, 200))
        with no_warnings():
            fill(cache, range(200, 300))
            assert found(cache, range(300)) == set(range(20))


def test_a_cache_on_a_full_disk_is_cleared(path: Path) -> None:
    with StateCache(path, limit_bytes=1 << 20) as cache:
        cache.put_many([(b"k" * 32, CachedState(torch.ones(3, 4, dtype=torch.bfloat16), torch.zeros(4)))])

    class Full(sqlite3.Connection):
        """A connection that can begin no transaction, as on a full disk."""

        def execute(self, statement: str, *rest: object) -> sqlite3.Cursor:
            if statement.startswith(("BEGIN", "DELETE")):
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(statement, *rest)  # type: ignore[arg-type]

    with StateCache(path, limit_bytes=1 << 20, connect=lambda file: sqlite3.connect(file, factory=Full)) as cache:
        cache.clear()
    assert not path.exists()
    with StateCache(path, limit_bytes=1 << 20) as cache:
        assert cache.entries == 0

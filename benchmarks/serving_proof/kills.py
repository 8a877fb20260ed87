"""Processes that are killed at random moments, while tasks are learned and clients ask."""

from __future__ import annotations

import random
import time
from pathlib import Path

from benchmarks.serving_proof.answers import Expected
from benchmarks.serving_proof.outcome import Outcome, watched
from benchmarks.serving_proof.scenes import variant
from benchmarks.serving_proof.servers import Server, kill, serving, wait_for
from conpet import Client, Task
from conpet.errors import ConpetError
from conpet.jobs.perform import changes_of
from conpet.store import Store

KILLED = {
    1: "the server or its learning process is killed",
    2: "the supervisor, one of two servers or the learning process is killed",
}
_FIRST_GUESS = 1.5
"""Seconds of a job, before it is known."""
_KILLS_IN_ROUND = 2


def kill_processes(path: Path, folder: Path, expected: Expected, task: Task, workers: int, kills: int) -> Outcome:
    """Kill processes of a server; after each round, the job that was accepted must have been done once.

    Args:
        path: The workspace.
        folder: For the log.
        expected: Gets the answers of all generations.
        task: Is learned in new variants.
        workers: Number of processes that answer, 1 or 2.
        kills: Number of kills.
    """
    kinds = ["server", "job", "job"] if workers == 1 else ["server", "worker", "worker", "job"]
    outcome = Outcome(KILLED[workers])
    draw = random.Random(f"kills|{workers}")
    seconds, number = _FIRST_GUESS, 0
    with serving(Server(path, folder, {"workers": workers})) as server:
        with watched(outcome, server, expected), Client(server.url, retries=60) as client:
            while outcome.tries < kills:
                number += 1
                job = client.learn(variant(task, number), evaluate=False)
                start, killed = time.monotonic(), list[str]()
                for _ in range(min(_KILLS_IN_ROUND, kills - outcome.tries)):
                    time.sleep(draw.uniform(0, 1.2 * seconds))
                    killed.append(_kill(draw.choice(kinds), server, draw))
                    outcome.tries += 1
                outcome.noted.update(killed)
                try:
                    client.wait(job, timeout=180)
                except ConpetError as error:
                    outcome.check(False, f"job {number} after {killed}: {error}")
                if not any(killed):
                    seconds = 0.7 * seconds + 0.3 * (time.monotonic() - start)
                made = len(changes_of(Store.open(path), job.id))
                outcome.check(made == 1, f"job {number} after {killed}: made {made} changes")
                generation = expected.note(path)
                wait_for(server.is_ready, 120, "the server is ready again")
                seen = client.predict(expected.texts[0], min_generation=generation)[0].generation
                outcome.check(seen == generation, f"generation {seen} instead of {generation}")
            wait_for(lambda: len(server.workers()) == workers, 60, "all processes run again")
        outcome.check(not Store.open(path).verify(), "the workspace is damaged")
    return outcome


def _kill(kind: str, server: Server, draw: random.Random) -> str:
    """Kill a process, and start the server again if that ended it, as an init system does; return what was killed."""
    if kind == "server":
        server.kill()
        server.restart()
        return "the first process of the server"
    if kind == "worker":
        return "a process that answers" if kill(draw.choice(server.workers())) else ""
    return "a process that learns" if kill(server.job_process()) else "no process that learns was there"

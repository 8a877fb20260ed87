"""The client."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx2

from conpet.client import calls
from conpet.client.calls import Call, Input, Inputs
from conpet.client.connection import Connection
from conpet.client.failures import Attempts, answer_of
from conpet.client.records import TaskInfo, VersionInfo
from conpet.client.waiting import LOOK_SECONDS, Following, Progress, Waiting
from conpet.data import Example, Examples, Task
from conpet.jobs.records import Job, JobEvent, JobState
from conpet.types import CandidateRecord, Decision, GateReport, Generation, LogEntry, Prediction
from conpet.watching.report import WatchReport

Answer = TypeVar("Answer")


class Client:
    """A client of `conpet serve`; threads may share it.

        with Client("http://127.0.0.1:8000", key="...") as client:
            print(client.predict("my card was swallowed")[0].label)
            print(client.wait(client.learn(task)).result)

    Args:
        url: Address of the server, for example "http://127.0.0.1:8000".
        key: API key; by default that of the environment variable CONPET_KEY, if there is one.
        timeout: Most seconds for connecting, and for waiting for an answer.
        retries: How often a request is tried again after a lost connection, or when the server is busy (429, 503; it
            says how long to wait). This changes nothing twice: changes carry an idempotency key.
        transport: Sends the requests instead of a connection, for tests.

    Raises:
        ConfigError: The address is wrong.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 4,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._connection = Connection.of(url, key, timeout, retries)
        self._http = httpx2.Client(**self._connection.options, transport=transport)

    def predict(
        self,
        inputs: Inputs,
        *,
        top_n: int = 3,
        min_score: float = 0.0,
        tasks: Collection[str] | None = None,
        explain: bool = False,
        min_generation: int | None = None,
        seconds: float | None = None,
    ) -> list[Prediction]:
        """Predict inputs (texts, examples, or mappings as in `ConPET.predict`) by one generation.

        Args:
            inputs: The inputs.
            top_n: Number of labels with scores for each input, 1 or more.
            min_score: Answers with a lower score are rejected, 0 to 1; see `ConPET.predict`.
            tasks: Names of the only tasks that may answer, or None for all.
            explain: Whether to return why each input was answered as it was.
            min_generation: The oldest generation that may answer, for example that of a job's result; waits for it.
            seconds: Most seconds for the answer, instead of the client's and the server's.

        Raises:
            DataError: An input is wrong, or the workspace has no tasks.
            ServerBusyError: The server is overloaded or does not answer in time.
        """
        return self._do(calls.predict(inputs, top_n, min_score, tasks, explain, min_generation, seconds))

    def watch(self) -> WatchReport:
        """Return what watching the recorded predictions has found; needs a key of the role `operate`."""
        return self._do(calls.watch())

    def predictions(
        self,
        *,
        decision: Decision | None = None,
        task: str | None = None,
        label: str | None = None,
        since: str | datetime | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[LogEntry]:
        """Return recorded predictions, newest first; needs a key of the role `operate`.

        Args:
            decision: Only with this decision.
            task: Only answers of this task.
            label: Only answers with this label.
            since: Only from this time on, or from as long ago as a duration like 7d says.
            before: Only those with lower ids: the last id of the former page.
            limit: Most of them, up to 1,000.
        """
        return self._do(calls.predictions(decision, task, label, since, before, limit))

    def feedback(self, right: Iterable[tuple[str, str] | tuple[str, int, str]]) -> dict[str, Any]:
        """Keep the right labels of recorded answers; needs a key of the role `learn`.

        Args:
            right: Of each answer the input's text and the right label; or the id of the request
                (`Prediction.request_id`), the number of the input in it from 1, and the right label.

        Returns:
            How many answers were `found` in the record, how many are `missing`, and the labels that are `not_learned`:
            answers to them count as wrong.
        """
        return self._do(calls.feedback(right))

    def review(self) -> dict[str, Any]:
        """Return how far the review is (see `Review.status`); needs a key of the role `learn`, as the next methods."""
        return self._do(calls.review(""))

    def review_draw(
        self, *, random: int = 50, uncertain: int = 25, declined: int = 25, below: float = 0.5, double: float = 0.0
    ) -> dict[str, Any]:
        """Draw recorded answers for review; see `Review.draw`."""
        options = {"random": random, "uncertain": uncertain, "declined": declined, "below": below, "double": double}
        return self._do(calls.review_draw(**options))

    def review_next(
        self, *, kind: str | None = None, minutes: float = 15.0, candidates: int = 0, reviewer: str | None = None
    ) -> dict[str, Any] | None:
        """Take the next item of review, or None if none waits; see `Review.next`.

        Args:
            kind: Only items of this kind.
            minutes: How long nobody else gets it.
            candidates: Number of present answers to choose from.
            reviewer: The person, if one key serves several.
        """
        return self._do(calls.review_next(kind=kind, minutes=minutes, candidates=candidates, reviewer=reviewer))

    def review_answer(
        self,
        item: int,
        verdict: str,
        label: str | None = None,
        *,
        note: str = "",
        seconds: float | None = None,
        reviewer: str | None = None,
    ) -> dict[str, Any]:
        """Say what is right for an item, and return it; see `Review.answer`."""
        said = {"verdict": verdict, "label": label, "note": note, "seconds": seconds, "reviewer": reviewer}
        return self._do(calls.review_answer(item, **said))

    def review_accuracy(self, since: str | None = None) -> dict[str, Any]:
        """Return the accuracy of recorded answers, estimated from those reviewed; see `Review.accuracy`.

        Args:
            since: Only answers from then on: a day, or a duration like "30d".
        """
        return self._do(calls.review("accuracy", since=since))

    def report(
        self,
        item: Input | None = None,
        *,
        request_id: str | None = None,
        place: int = 1,
        label: str | None = None,
        note: str = "",
    ) -> bool:
        """Report an answer as wrong, which keys of every role may, and return whether somebody has to look at it.

        Args:
            item: The input.
            request_id: Id of the request (`Prediction.request_id`), instead of the input or with it.
            place: Number of the input in the request, from 1.
            label: The right label, if it is known.
            note: What is wrong.
        """
        return self._do(calls.report(item, request_id=request_id, place=place, label=label, note=note))

    def learn_reviewed(
        self,
        *,
        into: str | None = None,
        name: str | None = None,
        evaluate: bool = True,
        gate: bool = True,
        idempotency_key: str | None = None,
    ) -> Job:
        """Ask the server to learn what was reviewed (see `ConPET.learn_reviewed`), and return the job.

        Args:
            into: A known task that gets labels which reviewers introduced.
            name: Name of a new task for them.
            evaluate: As in `learn`.
            gate: As in `learn`.
            idempotency_key: As in `learn`.
        """
        return self._do(calls.learn_reviewed(into, name, evaluate, gate, idempotency_key))

    def tasks(self) -> list[TaskInfo]:
        """Return the learned tasks, in order."""
        return self._do(calls.tasks())

    def labels(self, task: str | None = None) -> dict[str, str]:
        """Return the labels with the names of their tasks.

        Args:
            task: The only task, or None for all.
        """
        return self._do(calls.labels(task))

    def versions(self, task: str | None = None) -> list[VersionInfo]:
        """Return the versions of all tasks, or of one.

        Args:
            task: The only task, or None for all.
        """
        return self._do(calls.versions(task))

    def cost(self) -> dict[str, Any]:
        """Return what the workspace has cost, as `conpet cost --json` prints it; needs the role operate."""
        return self._do(calls.cost())

    def learn(
        self,
        tasks: Task | Iterable[Task],
        *,
        all_rows: bool = True,
        seed: int | None = None,
        batch: int = 1,
        needed_since: date | None = None,
        evaluate: bool = True,
        gate: bool = True,
        idempotency_key: str | None = None,
    ) -> Job:
        """Ask the server to learn tasks, and return the job; `wait` follows it.

        Args:
            tasks: A task, or several in order.
            all_rows: Whether missing validation and test sets stay empty; otherwise the server splits them off.
            seed: Seed for splitting them off; by default the workspace's.
            batch: Number of tasks to learn in each change.
            needed_since: The day from which the new labels were needed; the delay is part of the costs.
            evaluate: Whether to measure all tasks afterwards.
            gate: Whether the change is refused if earlier answers would get worse (see `ConPET.learn`); False needs the
                role operate.
            idempotency_key: The same key and tasks make one job; by default a new key.

        Raises:
            DataError: The data has errors; `problems` lists them.
            ConfigError: Settings or a template do not fit the workspace.
        """
        return self._do(calls.learn(tasks, all_rows, seed, batch, needed_since, evaluate, gate, idempotency_key))

    def extend(
        self,
        examples: Examples | Task,
        *,
        needed_since: date | None = None,
        evaluate: bool = True,
        gate: bool = True,
        idempotency_key: str | None = None,
    ) -> Job:
        """Ask the server to learn more examples of known labels; as `learn`."""
        return self._do(calls.extend(examples, needed_since, evaluate, gate, idempotency_key))

    def learn_file(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        template: str | None = None,
        extend: bool = False,
        seed: int | None = None,
        all_rows: bool = False,
        needed_since: date | None = None,
        evaluate: bool = True,
        gate: bool = True,
        idempotency_key: str | None = None,
    ) -> Job:
        """Send a data file to learn from, and return the job.

        Args:
            path: A JSONL, CSV or Parquet file (JSONL and CSV also gzipped).
            name: Name of the task; by default that of the file.
            template: Its template instead of the default of its kind.
            extend: Whether it holds more examples of known labels; then leave out the other options but
                `needed_since`, `evaluate` and `gate`.
            seed: Seed for splitting off validation and test sets; by default the workspace's.
            all_rows: Whether nothing is split off.
            needed_since: As in `learn`.
            evaluate: As in `learn`.
            gate: As in `learn`.
            idempotency_key: As in `learn`.

        Raises:
            DataError: The data has errors; `problems` lists them.
            ConfigError: An option is wrong, or the file cannot be read.
        """
        return self._do(
            calls.learn_file(
                Path(path), name, template, extend, seed, all_rows, needed_since, evaluate, gate, idempotency_key
            )
        )

    def remove(self, task: str, *, evaluate: bool = True, gate: bool = True, idempotency_key: str | None = None) -> Job:
        """Ask the server to remove a task, and return the job; as `learn`."""
        return self._do(calls.remove(task, evaluate, gate, idempotency_key))

    def activate(
        self, task: str, version: int, *, evaluate: bool = True, gate: bool = True, idempotency_key: str | None = None
    ) -> Job:
        """Ask the server to make a version of a task active (a rollback), and return the job; as `learn`."""
        return self._do(calls.activate(task, version, evaluate, gate, idempotency_key))

    def generations(self) -> list[Generation]:
        """Return the generations that can be gone back to, and the present one, oldest first."""
        return self._do(calls.generations())

    def restore(
        self, generation: int, *, evaluate: bool = True, gate: bool = True, idempotency_key: str | None = None
    ) -> Job:
        """Ask the server to go back to a kept generation (see `ConPET.restore`), and return the job; as `learn`."""
        return self._do(calls.restore(generation, evaluate, gate, idempotency_key))

    def rename(
        self, label: str, name: str, *, evaluate: bool = True, gate: bool = True, idempotency_key: str | None = None
    ) -> Job:
        """Ask the server to rename a label, and return the job; as `learn`."""
        return self._do(calls.rename(label, name, evaluate, gate, idempotency_key))

    def retire(
        self, label: str, *, evaluate: bool = True, gate: bool = True, idempotency_key: str | None = None
    ) -> Job:
        """Ask the server to remove a label with its examples, and return the job; as `learn`."""
        return self._do(calls.retire(label, evaluate, gate, idempotency_key))

    def split_label(
        self,
        label: str,
        examples: Iterable[Example],
        *,
        replace: bool = False,
        evaluate: bool = True,
        gate: bool = True,
        idempotency_key: str | None = None,
    ) -> Job:
        """Ask the server to split a label into those of examples (see `ConPET.split_label`), and return the job."""
        return self._do(calls.split(label, examples, replace, evaluate, gate, idempotency_key))

    def consolidate(
        self,
        *,
        bound: float = 0.0,
        layers: Literal["all", "top"] | None = None,
        again: bool = False,
        evaluate: bool = True,
        gate: bool = True,
        idempotency_key: str | None = None,
    ) -> Job:
        """Ask the server to consolidate (see `ConPET.consolidate`), and return the job; as `learn`."""
        return self._do(calls.consolidate(bound, layers, again, evaluate, gate, idempotency_key))

    def forget(
        self,
        rows: Iterable[str | Example] = (),
        *,
        ids: Iterable[str | int] = (),
        hashes: Iterable[str] = (),
        labels: Iterable[str] = (),
        tasks: Iterable[str] = (),
        older_than_days: int | None = None,
        reason: str = "",
        keep_modules: bool = False,
        drop_labels: bool = False,
        evaluate: bool = True,
        idempotency_key: str | None = None,
    ) -> Job:
        """Ask the server to forget data (see `ConPET.forget`), and return the job; its result has the receipt."""
        named = {"ids": ids, "hashes": hashes, "labels": labels, "tasks": tasks}
        options = {
            "reason": reason,
            "keep_modules": keep_modules,
            "drop_labels": drop_labels,
            "evaluate": evaluate,
        }
        return self._do(calls.forget(rows, named, older_than_days, options, idempotency_key))

    def candidates(self) -> list[CandidateRecord]:
        """Return the changes that the gate refused, oldest first."""
        return self._do(calls.candidates())

    def gate_report(self, candidate: int) -> GateReport:
        """Return what a refused change would do to earlier answers, without the inputs.

        Raises:
            UnknownNameError: There is no such candidate.
        """
        return self._do(calls.gate_report(candidate))

    def promote(self, candidate: int, *, gate: bool = True, idempotency_key: str | None = None) -> Job:
        """Ask the server to make a refused change, and return the job.

        Args:
            candidate: Number of the candidate.
            gate: Whether the gate judges it again; with False it is made whatever it breaks.
            idempotency_key: As in `learn`.
        """
        return self._do(calls.promote(candidate, gate, idempotency_key))

    def discard(self, candidate: int) -> None:
        """Delete a candidate."""
        self._do(calls.discard(candidate))

    def jobs(self, *, state: JobState | str | None = None, before: str | None = None, limit: int = 100) -> list[Job]:
        """Return jobs, newest first.

        Args:
            state: Only jobs in this state.
            before: Only jobs older than the one with this id.
            limit: Most jobs, up to 1,000.
        """
        return self._do(calls.jobs(state, before, limit))

    def job(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            UnknownNameError: There is no such job.
        """
        return self._do(calls.job(job_id))

    def log(self, job_id: str, after: int = 0) -> list[tuple[int, str]]:
        """Return lines of a job's log with their ids, only those after an id."""
        return self._do(calls.log(job_id, after))

    def cancel(self, job_id: str) -> Job:
        """Cancel a job: one that waits at once, one that runs at its next step."""
        return self._do(calls.cancel(job_id))

    def predict_stream(
        self, inputs: Iterable[Input], *, top_n: int = 3, min_score: float = 0.0, batch: int = 256
    ) -> Iterator[Prediction]:
        """Predict any number of inputs in constant memory, `batch` in each request; as `predict`.

        A change of the workspace meanwhile shows in the generation of the answers.
        """
        remaining = iter(inputs)
        while part := list(islice(remaining, batch)):
            yield from self.predict(part, top_n=top_n, min_score=min_score)

    def events(self, job_id: str, after: int = 0) -> Iterator[JobEvent]:
        """Yield what happens to a job until it ends; a lost connection is resumed.

        Args:
            job_id: The job.
            after: Id of the last event already known.
        """
        following = Following(job_id, after, self._connection.retries)
        while not following.ended:
            try:
                with self._http.stream(**following.connection()) as response:
                    pause = following.attempts.pause_after(response)
                    if pause is None and not response.is_success:
                        response.read()
                        answer_of(response)
                    for line in response.iter_lines():
                        if pause is None and (event := following.received(line)) is not None:
                            yield event
            except httpx2.TransportError as error:
                pause = following.attempts.pause_after_error(error, self._connection.url)
            if pause is not None:
                time.sleep(pause)
            elif not following.ended:
                following.ended = self.job(job_id).state.ended
                time.sleep(LOOK_SECONDS)

    def wait(self, job: Job | str, *, timeout: float | None = None, progress: Progress | None = None) -> Job:
        """Wait until a job has ended, and return it.

        Args:
            job: The job, or its id.
            timeout: Most seconds to wait; None for no limit. The job goes on after that.
            progress: Called with the name of a stage and the share done, 0 to 1.

        Raises:
            JobFailedError: It failed or was cancelled; the message says why.
            ServerBusyError: It has not ended in time.
        """
        waiting = Waiting(job, timeout, progress)
        while not waiting.ends(found := self.job(waiting.job_id)):
            time.sleep(LOOK_SECONDS)
        return found

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, call: Call[Answer]) -> Answer:
        """Send a request, again if that may help, and return the answer."""
        attempts = Attempts(self._connection.retries)
        while True:
            try:
                response = self._http.request(**self._connection.arguments(call))
                pause = attempts.pause_after(response)
                if pause is None:
                    return call.read(answer_of(response))
            except httpx2.TransportError as error:
                pause = attempts.pause_after_error(error, self._connection.url)
            time.sleep(pause)

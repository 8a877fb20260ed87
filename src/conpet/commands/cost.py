"""What a workspace has cost, from its ledger and its history; imports no torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise

from conpet.config import PricesConfig, Settings
from conpet.cost import BACKWARD, Resources
from conpet.evaluation.composite import Composite, composite, energy, price_of
from conpet.evaluation.cost_report import Alternative, CostLine, CostReport, TaskCost, VersionCost
from conpet.evaluation.history import BATCH, DECISION_COST, SETTINGS_ONLY, row_of
from conpet.evaluation.metrics import whole_accuracy
from conpet.review.review import Review
from conpet.store import CostKind, CostSource, EventRecord, LedgerEntry, Store
from conpet.store.ledger import total
from conpet.store.prediction_log import PredictionLog

_UPDATES = frozenset(CostKind) - {CostKind.PREDICT, CostKind.REVIEW}
_GB, _MONTH_SECONDS = 1e9, 30 * 24 * 3600.0
_BYTES = {"float32": 4, "float64": 8}
"""Bytes of a number; 2 for all others."""


@dataclass(slots=True)
class _Version:
    """The events of one change, and the entries of the ledger that belong to it."""

    events: list[EventRecord]
    entries: list[LedgerEntry] = field(default_factory=list)
    storage: float = 0.0
    """Price of storing it so far."""

    @property
    def generation(self) -> int:
        return self.events[-1].id

    def of(self, kinds: Iterable[CostKind]) -> list[LedgerEntry]:
        return [one for one in self.entries if one.kind in kinds]

    @property
    def answers(self) -> int:
        return sum(one.examples for one in self.of([CostKind.PREDICT]))


def cost_report(store: Store, now: datetime | None = None) -> CostReport:
    """Return what a workspace has cost; see `ConPET.cost`.

    Args:
        store: The workspace's store.
        now: Until when storage is counted; by default now.

    Raises:
        CorruptionError: The ledger is damaged.
    """
    Review(store, PredictionLog(store.path)).book()
    entries, events = store.ledger.entries(), store.events()
    header = store.header()
    prices = Settings.parse(header.settings).prices

    def price(resources: Resources) -> float:
        return price_of(
            prices,
            cpu_seconds=resources.cpu_seconds,
            gpu_seconds=resources.gpu_seconds,
            minutes=resources.minutes,
        )

    with store.snapshot() as snapshot:
        present = [task.name for task in snapshot.tasks]
    versions = _versions(events, entries)
    gb_months = _storage(events, now or datetime.now(UTC), versions, prices)
    storage = gb_months * (prices.gb_month or 0.0)
    measured = [accuracy for version in versions if (accuracy := _accuracy(version)) is not None]
    return CostReport(
        currency=prices.currency,
        prices=prices.model_dump(mode="json"),
        since=entries[0].time if entries else None,
        kinds=tuple(_line(kind, [one for one in entries if one.kind is kind], prices, price) for kind in CostKind),
        sources=tuple(
            _line(source, [one for one in entries if one.source is source], prices, price) for source in CostSource
        ),
        tasks=tuple(_tasks(entries, present, price)),
        storage_gb_months=gb_months,
        storage_money=storage,
        answers=sum(one.examples for one in entries if one.kind is CostKind.PREDICT),
        accuracy=measured[-1] if measured else None,
        alternatives=_alternatives(events, entries, price, _backbone_bytes(header.backbone)),
        versions=tuple(_version_costs(versions, prices, price)),
        notes=tuple(_notes(entries, events, prices)),
    )


def spent_since(store: Store, since: datetime) -> tuple[float, str]:
    """Return the money that everything but storage has cost since a moment, to the hour, and its currency.

    Raises:
        CorruptionError: The ledger is damaged.
    """
    prices = Settings.parse(store.header().settings).prices
    resources = total(store.ledger.entries(since))
    money = price_of(
        prices, cpu_seconds=resources.cpu_seconds, gpu_seconds=resources.gpu_seconds, minutes=resources.minutes
    )
    return money, prices.currency


def _line(
    name: str, entries: Sequence[LedgerEntry], prices: PricesConfig, price: Callable[[Resources], float]
) -> CostLine:
    resources = total(entries)
    return CostLine(
        str(name),
        sum(one.kind is not CostKind.PREDICT for one in entries),
        sum(one.examples for one in entries),
        resources,
        energy(prices, cpu_seconds=resources.cpu_seconds, gpu_seconds=resources.gpu_seconds),
        price(resources),
    )


def _tasks(
    entries: Sequence[LedgerEntry], present: Sequence[str], price: Callable[[Resources], float]
) -> Iterator[TaskCost]:
    """Yield the costs by task; the price of an hour's answers is divided by their number."""
    updates, running, review = (defaultdict[str, float](float) for _ in range(3))
    answers: Counter[str] = Counter()
    for one in entries:
        money = price(one.resources)
        if one.kind is not CostKind.PREDICT:
            (review if one.kind is CostKind.REVIEW else updates)[one.task or ""] += money
            continue
        for task, count in one.tasks.items():
            answers[task] += count
            running[task] += money * count / one.examples
        if not one.tasks:
            running[""] += money
    known = {*updates, *running, *review, *answers}
    removed = sorted(known - {*present, ""})
    for task in (*present, *removed, *([""] if "" in known else [])):
        yield TaskCost(task, task in present, updates[task], running[task], review[task], answers[task])


def _versions(events: Sequence[EventRecord], entries: Sequence[LedgerEntry]) -> list[_Version]:
    """Group events by change, and assign each entry to a version.

    Attempts that made nothing, and searches, belong to the version that came next; answers and reviews to the version
    that was active.
    """
    versions: list[_Version] = []
    for event in events[1:]:
        if event.verb in SETTINGS_ONLY:
            continue
        batch = event.detail.get(BATCH)
        if batch and versions and versions[-1].events[-1].detail.get(BATCH) == batch and event.task != batch[0]:
            versions[-1].events.append(event)
        else:
            versions.append(_Version([event]))
    if not versions:
        return []
    for one in entries:
        generation = one.generation or 0
        if one.kind in _UPDATES and (one.outcome != "done" or one.kind is CostKind.TUNE):
            following = (version for version in versions if version.generation > generation)
            next(following, versions[-1]).entries.append(one)
        elif one.kind in _UPDATES:
            made = (version for version in versions if version.generation >= generation)
            next(made, versions[-1]).entries.append(one)
        else:
            active = (version for version in reversed(versions) if version.generation <= generation)
            next(active, versions[0]).entries.append(one)
    return versions


def _storage(events: Sequence[EventRecord], now: datetime, versions: Sequence[_Version], prices: PricesConfig) -> float:
    """Return the gigabytes times months stored until now, and charge each version for its time."""
    ends = [*(event.time for event in events[1:]), max(now, events[-1].time)]
    months = {
        event.id: event.bytes_stored / _GB * max(0.0, (end - event.time).total_seconds()) / _MONTH_SECONDS
        for event, end in zip(events, ends, strict=True)
    }
    starts = [version.events[0].id for version in versions]
    for version, (start, following) in zip(versions, pairwise([*starts, events[-1].id + 1]), strict=True):
        own = sum(stored for event, stored in months.items() if start <= event < following)
        version.storage = own * (prices.gb_month or 0.0)
    return sum(months.values())


def _accuracy(version: _Version) -> float | None:
    return whole_accuracy(row_of(version.events[-1]).tallies)


def _version_costs(
    versions: Sequence[_Version], prices: PricesConfig, price: Callable[[Resources], float]
) -> Iterator[VersionCost]:
    answered = [one for version in versions for one in version.of([CostKind.PREDICT])]
    anywhere = _per_answer(answered, price)
    best: float | None = None
    for version in versions:
        own = version.of([CostKind.PREDICT])
        tested = [one for one in version.of([CostKind.EVALUATE]) if one.outcome == "done"]
        answers = version.answers
        per_answer = next(
            (each for each in (_per_answer(own, price), _per_answer(tested, price), anywhere) if each is not None), 0.0
        )
        updates = price(total(version.of(_UPDATES)))
        review = price(total(version.of([CostKind.REVIEW])))
        late = _late_days(version)
        accuracy = _accuracy(version)
        gained = None if accuracy is None or best is None else 100 * (accuracy - best)
        best = best if accuracy is None else accuracy
        tallies = row_of(version.events[-1]).tallies.values()
        yield VersionCost(
            generation=version.generation,
            time=version.events[-1].time,
            verb=version.events[-1].verb,
            tasks=tuple(event.task for event in version.events if event.task is not None),
            accuracy=accuracy,
            tested=sum(tally.total for tally in tallies),
            updates=updates,
            answers=answers,
            running=per_answer * answers + version.storage,
            review=review,
            late_days=late,
            score=_score(version, prices, accuracy, per_answer, updates, review, late),
            volume=prices.answers or answers,
            estimated=not answers,
            per_point=updates / gained if gained is not None and gained > 0 else None,
        )


def _score(
    version: _Version,
    prices: PricesConfig,
    accuracy: float | None,
    per_answer: float,
    updates: float,
    review: float,
    late: int,
) -> Composite | None:
    volume = prices.answers or version.answers
    error_rate = None if accuracy is None else 1 - accuracy
    if prices.quality == "decisions":
        error_rate = version.events[-1].detail.get(DECISION_COST)
    if error_rate is None or prices.wrong_answer is None or not volume:
        return None
    return composite(
        prices,
        error_rate=error_rate,
        answers=volume,
        late_days=late,
        updates=updates,
        running=per_answer * volume + version.storage,
        review=review,
    )


def _per_answer(entries: Sequence[LedgerEntry], price: Callable[[Resources], float]) -> float | None:
    answers = sum(one.examples for one in entries)
    return price(total(entries)) / answers if answers else None


def _late_days(version: _Version) -> int:
    """Return the days from the need for labels to their first answer, summed over the labels.

    What the gate refused was needed since the day that was given then.
    """
    learned = version.of([CostKind.LEARN])
    waiting = [one.needed_since for one in learned if one.outcome == "refused" and one.needed_since is not None]
    promoted = [
        replace(one, needed_since=waiting[-1])
        for one in version.of([CostKind.CHANGE])
        if one.verb == "promote" and waiting
    ]
    return sum(
        one.new_labels * max(0, (one.time.astimezone(UTC).date() - one.needed_since).days)
        for one in (*learned, *promoted)
        if one.needed_since is not None and one.outcome == "done"
    )


def _equivalents(resources: Resources) -> int:
    """Return the tokens of an operation, as if nothing came from the cache."""
    computed = resources.frozen_tokens + resources.module_tokens + BACKWARD * resources.trained_tokens
    return computed + resources.cached_tokens


def _unshared(entry: LedgerEntry) -> int:
    """Return the tokens of learning a task whose module has a model of its own: each step passes all layers."""
    used = entry.resources
    whole = used.trained_tokens * (1 / entry.suffix_share - 1) if entry.suffix_share else 0.0
    return _equivalents(used) + max(0, round(whole) - used.frozen_tokens - used.cached_tokens)


def _alternatives(
    events: Sequence[EventRecord],
    entries: Sequence[LedgerEntry],
    price: Callable[[Resources], float],
    backbone: int,
) -> tuple[Alternative, ...]:
    learned = [one for one in entries if one.kind is CostKind.LEARN and one.outcome == "done" and one.task]
    answered = [one for one in entries if one.kind is CostKind.PREDICT]
    if not learned:
        return ()
    stored = events[-1].bytes_stored
    removed = [(event.id, event.task) for event in events if event.verb == "remove"]
    needed = sum(_equivalents(one.resources) for one in learned)
    answering = sum(_equivalents(one.resources) for one in answered)
    modules = len({one.task for one in learned} - {task for _, task in removed})

    def other(name: str, learning: int, answers: int, bytes_stored: int) -> Alternative:
        return Alternative(
            name,
            learning,
            learning * _token_price(learned, price),
            learning / needed if needed else None,
            answers,
            answers * _token_price(answered, price),
            answers / answering if answering else None,
            bytes_stored,
            bytes_stored / (backbone + stored) if backbone + stored else None,
        )

    unshared_answers = sum(
        one.resources.frozen_tokens
        + one.resources.cached_tokens
        + round(one.resources.module_tokens / (one.suffix_share or 1.0))
        for one in answered
    )
    return (
        other("learning everything anew each time", _anew(learned, removed), answering, backbone + stored),
        other(
            "a module per task without sharing",
            sum(map(_unshared, learned)),
            unshared_answers,
            stored + backbone * max(1, modules),
        ),
    )


def _anew(learned: Sequence[LedgerEntry], removed: Sequence[tuple[int, str | None]]) -> int:
    """Return the tokens of learning all tasks that are known then anew with every task that is learned."""
    known: dict[str, int] = {}
    tokens = 0
    for number, one in enumerate(learned):
        known[str(one.task)] = _equivalents(one.resources)
        last_of_change = number + 1 == len(learned) or learned[number + 1].time != one.time
        if last_of_change:
            gone = {task for generation, task in removed if generation < (one.generation or 0)}
            known = {task: value for task, value in known.items() if task not in gone or task == one.task}
            tokens += sum(known.values())
    return tokens


def _token_price(entries: Sequence[LedgerEntry], price: Callable[[Resources], float]) -> float:
    """Return the measured price of a token; the other ways would find as many in the cache."""
    used = total(entries)
    tokens = _equivalents(used)
    return price(used) / tokens if tokens else 0.0


def _backbone_bytes(backbone: Mapping[str, object]) -> int:
    parameters = backbone.get("parameters")
    return int(parameters) * _BYTES.get(str(backbone.get("dtype")), 2) if isinstance(parameters, int) else 0


def _notes(entries: Sequence[LedgerEntry], events: Sequence[EventRecord], prices: PricesConfig) -> Iterator[str]:
    if not entries:
        yield "the ledger is empty: nothing was learned or predicted since it exists, or it could not be written"
    costs = {name: f"--{name.replace('_', '-')}" for name in ("cpu_hour", "gpu_hour", "gb_month", "review_hour")}
    used = total(entries)
    needed = {"gpu_hour": used.gpu_seconds, "review_hour": used.minutes}
    missing = [option for name, option in costs.items() if getattr(prices, name) is None and needed.get(name, 1)]
    if missing:
        yield f"without a price, so not counted: {', '.join(missing)} (`conpet costs set`)"
    scored = [("--wrong-answer", prices.wrong_answer), ("--answers", prices.answers)]
    lacking = [option for option, value in scored if value is None]
    if lacking:
        yield (
            f"composite scores need {' and '.join(lacking)} (`conpet costs set`)"
            if prices.wrong_answer is None
            else f"each version is charged to the answers that it gave itself; {lacking[0]} sets an expected number"
        )
    if prices.quality == "decisions" and all(DECISION_COST not in event.detail for event in events):
        yield "the costs of decisions are measured from the next change on"
    if entries and events[-1].id > 1 and entries[0].time > events[1].time and not _learned_first(entries, events):
        yield "the history is older than the ledger: what was done before is not counted"


def _learned_first(entries: Sequence[LedgerEntry], events: Sequence[EventRecord]) -> bool:
    """Return whether the first change is in the ledger, which is written after the history."""
    return any(one.generation == events[1].id for one in entries)

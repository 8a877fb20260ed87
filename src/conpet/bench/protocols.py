"""What results must have in common to be compared, and what is said where they do not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from conpet.bench.results import Protocol, Result
from conpet.config.base import flat
from conpet.errors import ConfigError

Sources = Mapping[str, Sequence[Result]]
"""Name of a folder to the results in it."""


def differing(one: Protocol, other: Protocol) -> dict[str, tuple[str, str]]:
    """Return field to both values where two protocols differ; nested ones by dotted names, "budget.training.epochs"."""
    ours, theirs = (dict(_flat(given)) for given in (one, other))
    pairs = {
        field: (ours.get(field, "not set"), theirs.get(field, "not set")) for field in dict.fromkeys([*ours, *theirs])
    }
    return {field: values for field, values in pairs.items() if len(set(values)) > 1}


def differences(one: Protocol, other: Protocol, names: tuple[str, str]) -> list[str]:
    """Return what differs between two protocols, field by field: "backbone: minilm-l6 in A, smollm2-135m in B"."""
    return [
        f"{field}: {ours} in {names[0]}, {theirs} in {names[1]}"
        for field, (ours, theirs) in differing(one, other).items()
    ]


def protocol_key(protocol: Protocol) -> str:
    """Return what is equal for equal protocols alone, and holds all of one."""
    return json.dumps(protocol.model_dump(mode="json"), sort_keys=True)


def refuse_mixture(source: str, results: Iterable[Result]) -> None:
    """Refuse results of an older state of the experiment between newer ones, and the same run twice."""
    first: dict[tuple[str, str, str], Result] = {}
    runs: set[tuple[str, str, str, str, int, int]] = set()
    for result in results:
        stream = (result.experiment, result.data, result.variant)
        run = (*stream, result.learner, result.order, result.seed)
        before = first.setdefault(stream, result)
        if found := differences(before.protocol, result.protocol, (_named(before), _named(result))):
            raise ConfigError(
                f"{source}: results of different protocols stand beside each other; remove the outdated ones:"
                + listed(found)
            )
        if run in runs:
            raise ConfigError(
                f"{source}: the run {_named(result)} is there twice; name the folder of one experiment, or remove one "
                f"of its files:{listed(_files(source, result))}"
            )
        runs.add(run)


def _named(result: Result) -> str:
    parts = [result.experiment, result.data, result.variant, result.learner, f"order {result.order}"]
    return f"({', '.join(part for part in parts if part)}, seed {result.seed})"


def _files(source: str, result: Result) -> list[str]:
    """Return the files below a folder that hold a run, as the runner names them; none where the source is no path."""
    return [
        str(path)
        for path in sorted(Path(source).rglob(f"*-o{result.order}-s{result.seed}.json"))
        if _named(Result.read(path)) == _named(result)
    ]


def shared(sources: Sources) -> Sources:
    """Return the results on data sets and variants that all sources have, if they have one protocol."""
    protocols: dict[str, dict[tuple[str, str], Protocol]] = {}
    for source, results in sources.items():
        if len(names := sorted({result.experiment for result in results})) > 1:
            raise ConfigError(f"{source} holds several experiments; give the folder of one: {', '.join(names)}")
        protocols[source] = {(result.data, result.variant): result.protocol for result in results}
    common = set.intersection(*(set(found) for found in protocols.values()))
    if not common:
        has = [
            f"{source}: {', '.join(sorted(' '.join(key).strip() for key in found)) or 'nothing of what is asked for'}"
            for source, found in protocols.items()
        ]
        raise ConfigError(f"the folders have no data set and variant in common:{listed(has)}")
    for one, other in combinations(sources, 2):
        for key in sorted(common):
            if found := differences(protocols[one][key], protocols[other][key], (one, other)):
                raise ConfigError(
                    f"{' '.join(key).strip()} was run by different protocols, whose results cannot be compared:"
                    + listed(found)
                )
    return {
        source: [result for result in results if (result.data, result.variant) in common]
        for source, results in sources.items()
    }


def _flat(protocol: Protocol) -> Iterator[tuple[str, str]]:
    for field, value in flat(protocol.model_dump(mode="json")).items():
        if value != {}:  # nothing was given
            yield field, "all" if value is None else str(value)


def listed(lines: Iterable[str]) -> str:
    """Return lines as they follow a message."""
    return "".join(f"\n  {line}" for line in lines)

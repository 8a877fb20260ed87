"""Compare the protocols of results, and refuse results that are not comparable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from conpet.bench.results import Protocol, Result
from conpet.config.base import flat
from conpet.errors import ConfigError

Sources = Mapping[str, Sequence[Result]]
"""Results by the name of their folder."""


def differing(first: Protocol, second: Protocol) -> dict[str, tuple[str, str]]:
    """Return the fields in which two protocols differ, with both values; nested fields have dotted names."""
    left, right = (dict(_flat(protocol)) for protocol in (first, second))
    pairs = {
        field: (left.get(field, "not set"), right.get(field, "not set")) for field in dict.fromkeys([*left, *right])
    }
    return {field: values for field, values in pairs.items() if len(set(values)) > 1}


def differences(first: Protocol, second: Protocol, names: tuple[str, str]) -> list[str]:
    """Describe the differences between two protocols, field by field: "backbone: minilm-l6 in A, smollm2-135m in B"."""
    return [
        f"{field}: {left} in {names[0]}, {right} in {names[1]}"
        for field, (left, right) in differing(first, second).items()
    ]


def protocol_key(protocol: Protocol) -> str:
    """Return a string that is equal exactly for equal protocols."""
    return json.dumps(protocol.model_dump(mode="json"), sort_keys=True)


def refuse_mixture(source: str, results: Iterable[Result]) -> None:
    """Refuse results of different protocols in one experiment, and duplicate runs."""
    first: dict[tuple[str, str, str], Result] = {}
    runs: set[tuple[str, str, str, str, int, int]] = set()
    for result in results:
        stream = (result.experiment, result.data, result.variant)
        run = (*stream, result.learner, result.order, result.seed)
        before = first.setdefault(stream, result)
        if changed := differences(before.protocol, result.protocol, (_named(before), _named(result))):
            raise ConfigError(
                f"{source}: results of different protocols are mixed; remove the outdated ones:" + listed(changed)
            )
        if run in runs:
            raise ConfigError(
                f"{source}: the run {_named(result)} occurs twice; give the folder of one experiment, or remove one of "
                f"the files:{listed(_files(source, result))}"
            )
        runs.add(run)


def _named(result: Result) -> str:
    parts = [result.experiment, result.data, result.variant, result.learner, f"order {result.order}"]
    return f"({', '.join(part for part in parts if part)}, seed {result.seed})"


def _files(source: str, result: Result) -> list[str]:
    """Return the result files of a run below a folder; empty if the source is not a folder."""
    return [
        str(path)
        for path in sorted(Path(source).rglob(f"*-o{result.order}-s{result.seed}.json"))
        if _named(Result.read(path)) == _named(result)
    ]


def shared(sources: Sources) -> Sources:
    """Return the results on data sets and variants common to all sources, which must have the same protocol."""
    protocols: dict[str, dict[tuple[str, str], Protocol]] = {}
    for source, results in sources.items():
        if len(names := sorted({result.experiment for result in results})) > 1:
            raise ConfigError(f"{source} contains several experiments; give the folder of one: {', '.join(names)}")
        protocols[source] = {(result.data, result.variant): result.protocol for result in results}
    common = set.intersection(*(set(keys) for keys in protocols.values()))
    if not common:
        has = [
            f"{source}: {', '.join(sorted(' '.join(key).strip() for key in keys)) or 'nothing requested'}"
            for source, keys in protocols.items()
        ]
        raise ConfigError(f"the folders have no data set and variant in common:{listed(has)}")
    for first, second in combinations(sources, 2):
        for key in sorted(common):
            if changed := differences(protocols[first][key], protocols[second][key], (first, second)):
                raise ConfigError(
                    f"{' '.join(key).strip()} was run with different protocols, so the results cannot be compared:"
                    + listed(changed)
                )
    return {
        source: [result for result in results if (result.data, result.variant) in common]
        for source, results in sources.items()
    }


def _flat(protocol: Protocol) -> Iterator[tuple[str, str]]:
    for field, value in flat(protocol.model_dump(mode="json")).items():
        if value != {}:  # an empty section
            yield field, "all" if value is None else str(value)


def listed(lines: Iterable[str]) -> str:
    """Join lines to append to a message."""
    return "".join(f"\n  {line}" for line in lines)

from __future__ import annotations

import pytest

from conpet.data import Need
from conpet.data.quality.lengths import cut_summary


@pytest.mark.parametrize(
    ("tokens", "longest", "said"),
    [
        ((5, 128), 512, None),
        (
            (130, 5, 200, 1),
            512,
            "2 of 4 inputs will be cut at 128 tokens, half of them by 2 tokens or more and the longest "
            "by 72; backbone.max_tokens=200 would keep all of them whole",
        ),
        ((130, 900), None, "max_tokens=900 would keep all of them whole"),
        ((130, 900), 512, "the backbone reads at most 512 tokens, which would keep 1 of them whole"),
    ],
)
def test_the_summary_says_how_many_by_how_much_and_what_would_help(
    tokens: tuple[int, ...], longest: int | None, said: str | None
) -> None:
    summary = cut_summary([Need(count, 2) for count in tokens], 128, longest)
    assert (summary is None) == (said is None)
    assert (said or "") in (summary or "")


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        (Need(900, 200), "need 200 tokens, more than the limit of 128"),
        (Need(9, 5, ("tail",)), "the tail span has no tokens"),
        (Need(0, 0), "has no tokens"),
        (Need(900, 20), ""),
    ],
)
def test_what_cannot_be_encoded(need: Need, reason: str) -> None:
    assert reason in (need.problem(128) or "")
    assert (need.problem(128) is None) == (not reason)

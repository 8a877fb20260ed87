import pytest

from conpet.report import text


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (text.percent(0.8923), "89.2%"),
        (text.percent(None), "–"),
        (text.points(0.014), "+1.4"),
        (text.points(-0.014), "−1.4"),
        (text.points(-0.0001), "0.0"),
        (text.plain_points(0.012), "1.2"),
        (text.plain_points(-0.012), "−1.2"),
        (text.count(1234567), "1,234,567"),
        (text.short_count(134_515_008), "135M"),
        (text.short_count(6_738_415_616), "6.74B"),
        (text.short_count(999_999), "1.00M"),
        (text.short_count(12), "12"),
        (text.times(3213.2), "3,213×"),
        (text.times(0.24), "0.2×"),
        (text.size(2_400_000), "2.40 MB"),
        (text.size(999), "999 B"),
        (text.duration(0), "0 s"),
        (text.duration(0.421), "0.42 s"),
        (text.duration(38.2), "38 s"),
        (text.duration(59.7), "1 min 00 s"),
        (text.duration(372), "6 min 12 s"),
        (text.duration(7500), "2 h 05 min"),
        (text.plural(1, "task"), "1 task"),
        (text.plural(1000, "task"), "1,000 tasks"),
    ],
)
def test_numbers_are_written_for_people(written, expected):
    assert written == expected


@pytest.mark.parametrize(
    ("name", "columns", "expected"),
    [
        ("banking", 10, "banking"),
        ("banking matters", 10, "banking m…"),
        ("two\nlines\x00", 20, "two lines"),
        ("返品と交換", 10, "返品と交換"),
        ("返品と交換", 9, "返品と交…"),
    ],
)
def test_long_names_are_cut_by_the_room_they_take(name, columns, expected):
    shortened = text.shorten(name, columns)
    assert shortened == expected
    assert text.width(shortened) <= columns


def test_names_are_listed_as_far_as_they_fit():
    assert text.fitting(["a", "b", "c"], 40) == "a, b, c"
    assert text.fitting(["first", "second", "third", "fourth"], 30) == "first, second and 2 more"
    assert text.fitting(["x" * 40, "b"], 20) == "x" * 29 + "… and 1 more"


def test_intervals_are_wilsons():
    low, high = text.wilson_interval(81, 263)  # example of Newcombe (1998), table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert text.wilson_interval(5, 5)[1] == 1.0


def test_long_labels_are_shortened_where_they_are_quoted() -> None:
    long = "the customer wants to know when the parcel that was sent last week will arrive"
    short = text.label(long)
    assert (len(short), short[-1]) == (60, "…")
    assert text.with_short_labels(f"label {long!r} is probably 'hours'") == f"label '{short}' is probably 'hours'"
    quote = f"{long}, it's late"
    assert text.with_short_labels(f"no label {quote!r}") == f'no label "{text.label(quote)}"'
    whole = f"the file's name is {'long ' * 20}and the task's is not"
    assert text.with_short_labels(whole) == whole

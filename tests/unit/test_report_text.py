import pytest
from reports import HOSTILE

from roadworthy.conformance.report.text import clip, day, duration, one_line, plural, size
from roadworthy.pages import visible


def test_what_acts_instead_of_being_seen_is_spelled_out():
    assert visible("a\x1b[31m\x9b\u202e\ud800\x00b") == r"a\x1b[31m\x9b\u202e\ud800\x00b"
    assert visible("tab\tand\nline, é 漢 😀") == "tab\tand\nline, é 漢 😀"
    visible(HOSTILE).encode()


def test_a_long_text_says_how_long_it_was():
    assert clip("x" * 10, 10) == "x" * 10
    cut = clip("x" * 5000, 100)
    assert len(cut) == 100
    assert cut.endswith("… (5,000 characters in all)")
    assert one_line("a\n  b\tc") == "a b c"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0000004, "0 µs"), (0.00025, "250 µs"), (0.00999, "9.99 ms"), (0.0617, "61.7 ms"), (0.512, "512 ms"),
        (1.2, "1.20 s"), (59.96, "60.0 s"), (119.6, "120 s"), (125, "2 min 05 s"),
    ],
)  # fmt: skip
def test_durations_have_a_unit_and_three_figures(seconds, words):
    assert duration(seconds) == words


def test_counts_sizes_and_days_read_well():
    assert (plural(1, "retry", "retries"), plural(2000, "retry", "retries")) == ("1 retry", "2,000 retries")
    assert (size(1), size(2048), size(3 * 1024 * 1024)) == ("1 byte", "2.0 KiB", "3.0 MiB")
    assert day("2026-11-21T05:13:00+01:00") == "21 November 2026, 04:13 UTC"
    assert day("") == ""

"""The text format of Prometheus: what a scraper reads is read, what it refuses is told, and no page costs much."""

from __future__ import annotations

import math
import time

import pytest

from roadworthy.conformance.reading.prometheus import histogram_problems, parse

PAGE = """\
# HELP requests_total How many requests: "quotes" and \\\\ stand here freely.
# TYPE requests_total counter
requests_total{method="GET",path="/a\\"b"} 3
requests_total { method = "POST" , path = "/{x}, y" , } 4.5e1 1700000000000
# a comment

# TYPE queue gauge
queue -Inf
plain NaN
# TYPE took_seconds histogram
took_seconds_bucket{le="0.1"} 1
took_seconds_bucket{le="+Inf"} 2
took_seconds_sum 1.5
took_seconds_count 2
"""


def test_a_page_is_read():
    found = parse(PAGE)
    assert found.problems == []
    assert found.types == {"requests_total": "counter", "queue": "gauge", "took_seconds": "histogram"}
    assert found.samples["requests_total", (("method", "POST"), ("path", "/{x}, y"))] == 45.0
    assert math.isnan(found.samples["plain", ()])
    assert found.samples["queue", ()] == -math.inf
    assert {name for name, _ in found.counters} == {"requests_total", "took_seconds_count"}
    assert list(histogram_problems(found)) == []


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("a", "no sample"),
        ("a{", "no sample"),
        ("1a 2", "no sample"),
        ("a 1 2 3", "no sample"),
        ("a-b 1", "no sample"),
        ("<html>", "no sample"),
        ("a one", "no number"),
        ("a 1,5", "no number"),
        ("a 1_000", "no number"),
        ("a{b=c} 1", "labels"),
        ('a{b="c} 1', "labels"),
        ('a{b="c"d="e"} 1', "labels"),
        ('a{b="1",b="2"} 1', "labels"),
        ('a{b="\\x"} 1', "labels"),
        ("# TYPE a meter", "type of a"),
        ("a 1\n# TYPE a counter", "after its samples"),
        ("# TYPE a counter\n# TYPE a counter", "twice"),
        ("a 1\na 2", "twice"),
        ('a{b="1",c="2"} 1\na{c="2",b="1"} 1', "twice"),
    ],
)
def test_what_a_scraper_refuses_is_told(line, word):
    problems = parse(line + "\n").problems
    assert len(problems) == 1
    assert word in problems[0]


def test_the_last_line_ends():
    assert parse("a 1").problems == ["the last line does not end in a line feed"]
    assert parse("").problems == []


@pytest.mark.parametrize(
    ("buckets", "word"),
    [
        ({"1": 3, "2": 2, "+Inf": 3}, "not cumulative"),
        ({"1": 1, "2": 2}, "no bucket for +Inf"),
        ({"1": 1, "+Inf": 2}, "not the count"),
        ({"one": 3, "+Inf": 3}, "no number"),
    ],
)
def test_wrong_histograms_are_told(buckets, word):
    lines = "".join(f'h_bucket{{le="{top}"}} {count}\n' for top, count in buckets.items())
    found = parse(f"# TYPE h histogram\n{lines}h_sum 1\nh_count 3\n")
    assert found.problems == []
    [problem] = histogram_problems(found)
    assert word in problem


@pytest.mark.parametrize(
    "line",
    [
        "a" + " " * 60_000 + "x y z",
        "a{" + "} " * 30_000,
        "a{" + 'b="",' * 10_000 + "} 1",
        "a{" + "".join(f'b{n}="",' for n in range(6_000)) + " " * 2_000 + "} 1",
        "a" * 10_000_000,
    ],
    ids=["blanks", "braces", "label_twice", "labels", "long"],
)
def test_no_page_costs_much(line):
    began = time.process_time()
    parse((line + "\n") * (20 if len(line) < 1_000_000 else 1))
    assert time.process_time() - began < 2.0

import xml.etree.ElementTree as ET

import pytest
from reports import every_verdict, green, report, result, rule

from roadworthy.conformance.report import render_badge
from roadworthy.conformance.verdict import Level, Verdict

SVG = "{http://www.w3.org/2000/svg}"
SHOULD = rule("chat.should", Level.SHOULD)
DOUBT = rule("chat.doubt")


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        (green(), "pass"),
        (every_verdict(), "fail"),
        ([*green(), (SHOULD, result(SHOULD, Verdict.WARN))], "warn"),
        ([(DOUBT, result(DOUBT, Verdict.INCONCLUSIVE, reason="busy"))], "inconclusive"),
    ],
)
def test_the_badge_says_the_verdict_in_words_and_can_be_read(rows, word):
    root = ET.fromstring(render_badge(report(rows)))
    assert root.findtext(f"{SVG}title") == root.get("aria-label") == f"roadworthy: {word}"
    assert root.get("role") == "img"
    assert [text.text for text in root.iter(f"{SVG}text")] == ["roadworthy", word]
    rects = [rect for rect in root.iter(f"{SVG}rect") if rect.get("fill")]
    assert sum(int(rect.get("width")) for rect in rects) == int(root.get("width"))
    for rect in rects:
        assert 1.05 / (luminance(rect.get("fill")) + 0.05) >= 4.5, rect.get("fill")

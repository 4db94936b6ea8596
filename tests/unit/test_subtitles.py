"""Reading of subtitles: what players read is read, what they drop is refused in a sentence."""

from __future__ import annotations

import pytest

from roadworthy.conformance.reading.subtitles import Cue, SubtitleError, srt, vtt

CUES = [Cue(0.0, 1.5, "One,\ntwo."), Cue(3661.25, 3662.0, "Three.")]
SRT = "1\n00:00:00,000 --> 00:00:01,500\nOne,\ntwo.\n\n2\n01:01:01,250 --> 01:01:02,000\nThree.\n"
VTT = "WEBVTT\n\n00:00.000 --> 00:01.500\nOne,\ntwo.\n\n01:01:01.250 --> 01:01:02.000\nThree.\n"


@pytest.mark.parametrize(
    "text", [SRT, SRT.replace("\n", "\r\n"), "\ufeff" + SRT, SRT.replace("\n\n", "\n\n\n"), SRT.strip()]
)
def test_subrip_in_its_legal_forms(text):
    assert srt(text) == CUES


@pytest.mark.parametrize(
    "text",
    [
        VTT,
        VTT.replace("\n", "\r\n"),
        "\ufeff" + VTT,
        VTT.replace("WEBVTT", "WEBVTT - title\nKind: captions"),
        VTT.replace("WEBVTT\n", "WEBVTT\n\nSTYLE\n::cue { color: red }\n\nNOTE\nby machine\n"),
        VTT.replace("00:00.000", "intro\n00:00.000").replace("01.500", "01.500 align:start line:0%"),
        VTT.replace("One,", "<v Ann>One,</v>"),
    ],
)
def test_webvtt_in_its_legal_forms(text):
    assert vtt(text) == CUES


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SRT.replace(",000", ".000"), "in place of 00:00:00,000"),
        (SRT.replace("1\n00:00:00", "00:00:00"), "in place of its number"),
        (SRT.replace("-->", "->"), "in place of 00:00:00,000"),
        ("1\n", "nothing"),
        ("Just words.", "in place of its number"),
        ("1\n00:00:00,000 --> 00:00:61,000\nx\n", "in place of"),
        ("1\n\n" * 10_001, "more than 10,000"),
    ],
)
def test_what_is_no_subrip_is_refused_in_a_sentence(text, says):
    with pytest.raises(SubtitleError, match=says) as raised:
        srt(text)
    assert str(raised.value).endswith(".")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "WEBVTT"),
        (VTT.removeprefix("WEBVTT\n\n"), "not with the line WEBVTT"),
        (VTT.replace("WEBVTT", "WEBVTTX"), "not with the line WEBVTT"),
        (VTT.replace(".000", ",000"), "in place of 00:00.000"),
        ("WEBVTT\n\nwords without times\n", "in place of 00:00.000"),
    ],
)
def test_what_is_no_webvtt_is_refused_in_a_sentence(text, says):
    with pytest.raises(SubtitleError, match=says) as raised:
        vtt(text)
    assert str(raised.value).endswith(".")


def test_no_cues_is_an_empty_list():
    assert srt("") == []
    assert vtt("WEBVTT\n") == []

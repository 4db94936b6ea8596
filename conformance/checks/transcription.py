"""Checks of transcriptions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from functools import cache
from typing import Any

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange, Malformed, objects
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes import transcription as probes
from roadworthy.conformance.reading import media, subtitles
from roadworthy.conformance.reading import route_rules as rules
from roadworthy.conformance.reading.in_time import whole_in_time
from roadworthy.conformance.reading.refusal import must_refuse
from roadworthy.conformance.reading.subtitles import Cue, SubtitleError
from roadworthy.conformance.strict_json import loads
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_number, show
from roadworthy.schemas import manifest

API = "OpenAI API reference, audio, transcriptions"
SPEC = "published inference API, POST /v1/audio/transcriptions"
BOTH = (Lens.HUB, Lens.OPENAI)
ALL = (Lens.HUB, Lens.SPEC, Lens.OPENAI)
SUBRIP = "SubRip file format"
WEBVTT = "WebVTT, section 4"
SLACK_S = 1.0
"""How far a time may lie behind the end of the recording: models round to whole steps."""
SAME_LENGTH_S = 1.0
"""How far the duration may be off: some round up to whole seconds."""
UNLIKE = 0.5
"""Below this share of common words two texts are not of one recording."""


@cache
def _duration_s() -> float:
    return media.audio(manifest.media(probes.SPEECH)).duration_s


def _body(exchange: Exchange) -> str:
    return exchange.reply.body.decode(errors="replace")


def _text(exchange: Exchange) -> str | None:
    said = exchange.answer.get("text")
    return said if isinstance(said, str) else None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _differs(text: str, other: str, at: str) -> Iterator[Outcome]:
    """Fails where one text is the other with words missing, or speaks of something else.

    A model may well hear a word otherwise the second time; that is not held against it.
    """
    one, two = _words(text), _words(other)
    if not one or not two:
        yield NotApplicable("there are no two texts to compare")
        return
    matcher = SequenceMatcher(None, one, two, autojunk=False)
    kinds = {kind for kind, *_ in matcher.get_opcodes() if kind != "equal"}
    if kinds in ({"delete"}, {"insert"}) or matcher.ratio() < UNLIKE:
        yield Finding(show(other), show(text), at=at)
    elif kinds:
        yield NotApplicable("the model heard its two answers differently")


def _cues(exchange: Exchange, read: Callable[[str], list[Cue]]) -> list[Cue]:
    try:
        return read(_body(exchange))
    except SubtitleError:
        return []


def _unreadable(exchange: Exchange, read: Callable[[str], list[Cue]], what: str) -> Iterator[Outcome]:
    refused = rules.declined(exchange, what)
    if refused:
        yield refused
        return
    try:
        cues = read(_body(exchange))
    except SubtitleError as error:
        yield Finding(what, f"{error} {show(exchange.reply.body)}", at="body")
        return
    if not cues:
        yield Finding("at least one cue", show(exchange.reply.body) or "an empty body", at="body")


Times = Sequence[tuple[float, float]]


def _disordered(times: Times, what: str) -> Iterator[Outcome]:
    """Fails for a part that ends before it begins, or begins before the part ahead of it."""
    if not times:
        yield NotApplicable(f"there is no readable {what}")
    latest = 0.0
    for place, (start_s, end_s) in enumerate(times):
        if end_s < start_s or start_s < latest:
            got = f"{start_s:g} s to {end_s:g} s, behind one that begins at {latest:g} s"
            yield Finding("times that rise", got, at=f"{what} {place + 1}")
            return
        latest = start_s


def _outside(times: Times, what: str) -> Iterator[Outcome]:
    """Fails for a part that lies beyond the recording."""
    if not times:
        yield NotApplicable(f"there is no readable {what}")
    for place, (start_s, end_s) in enumerate(times):
        if start_s < 0 or end_s > _duration_s() + SLACK_S:
            expected = f"times from 0 s to {_duration_s():.2f} s, the length of the recording"
            yield Finding(expected, f"{start_s:g} s to {end_s:g} s", at=f"{what} {place + 1}")
            return


# The answer


@check(
    "transcription.answered",
    level=Level.MUST,
    lenses=ALL,
    source=SPEC,
    remedy="Serve POST /v1/audio/transcriptions for this model: a form with `file` and `model`.",
    each=probes.JSON,
    on=Usable.COMPLETE,
)
def answered(exchange: Exchange) -> Iterator[Finding]:
    """A recording is answered with 200.

    The model is listed for speech recognition, and this is the route that clients of the OpenAI SDK use for it.
    """
    yield from rules.not_answered(exchange)


@check(
    "transcription.strict_json",
    level=Level.MUST,
    lenses=BOTH,
    source="RFC 8259; JavaScript inference client, request",
    remedy="Answer with one strict JSON object under `Content-Type: application/json`.",
    each=(*probes.JSON, probes.as_verbose),
    on=Usable.SUCCESS,
)
def is_json(exchange: Exchange) -> Iterator[Finding]:
    """JSON, the default, is one strict object, and labelled as JSON.

    The SDK parses by the label, and hands its caller a string where it says something else.
    """
    yield from rules.not_json(exchange)


@check(
    "transcription.shape",
    level=Level.MUST,
    lenses=ALL,
    source=f"{SPEC}; {API}",
    remedy='Answer {"text": "..."}.',
    each=probes.JSON,
    on=Usable.JSON,
)
def shape(exchange: Exchange) -> Iterator[Finding]:
    """A transcription has its words in `text`.

    Clients read that field and nothing else.
    """
    yield from rules.misshapen(exchange, "transcription/transcription.json")


@check(
    "transcription.words",
    level=Level.MUST,
    lenses=BOTH,
    source=API,
    remedy="Look at the decoding of the file: 16 kHz mono WAV with 16 bits is the plainest there is.",
    each=(*probes.JSON, probes.as_verbose),
    on=Usable.JSON,
)
def words(exchange: Exchange) -> Iterator[Finding]:
    """A clearly spoken sentence gives words.

    An empty text under status 200 says that nobody spoke, and callers believe it.
    """
    said = _text(exchange)
    if said is not None and not _words(said):
        yield Finding("some words", show(said) or '""', at="/text")


@check(
    "transcription.text.plain",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, response_format",
    remedy="Answer `response_format=text` with the words alone, as text/plain.",
    each=probes.as_text,
    on=Usable.COMPLETE,
)
def text_plain(exchange: Exchange) -> Iterator[Outcome]:
    """Plain text is the words alone: no JSON, no quotes around it.

    Scripts write the body into a file as it comes.
    """
    refused = rules.declined(exchange, "plain text")
    if refused:
        yield refused
        return
    value = loads(exchange.reply.body)
    if exchange.media_type == "application/json" or isinstance(value, dict | list | str):
        got = f"{exchange.media_type or 'no content type'}: {show(exchange.reply.body)}"
        yield Finding("text/plain with the words alone", got, at="body")


@check(
    "transcription.text.same",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, response_format",
    remedy="Write all formats from one result.",
    joint=[probes.as_json, probes.as_text],
    on=Usable.SUCCESS,
)
def text_same(whole: Exchange, plain: Exchange) -> Iterator[Outcome]:
    """Plain text tells the same words as JSON.

    A format is a form, not another result.
    """
    if isinstance(loads(plain.reply.body), Malformed):
        yield from _differs(_body(plain), _text(whole) or "", "body")
    else:
        yield NotApplicable("the text is JSON; see transcription.text.plain")


# Subtitles


@check(
    "transcription.srt.cues",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{SUBRIP}; {API}, response_format",
    remedy="Write each cue as its number, a line 00:00:00,000 --> 00:00:00,000, its words, and an empty line.",
    each=probes.as_srt,
    on=Usable.COMPLETE,
)
def srt_cues(exchange: Exchange) -> Iterator[Outcome]:
    """SubRip subtitles can be read: numbered cues, each with its times.

    Players drop what they cannot read, or refuse the file.
    """
    yield from _unreadable(exchange, subtitles.srt, "SubRip subtitles")


@check(
    "transcription.srt.order",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=SUBRIP,
    remedy="Sort cues by their beginning; end each after it begins.",
    each=probes.as_srt,
    on=Usable.SUCCESS,
)
def srt_order(exchange: Exchange) -> Iterator[Outcome]:
    """The times of SubRip cues rise.

    Players show a cue that ends before it begins never, or for ever.
    """
    yield from _disordered([(cue.start_s, cue.end_s) for cue in _cues(exchange, subtitles.srt)], "cue")


@check(
    "transcription.srt.inside",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=SUBRIP,
    remedy="Look at the unit of your times, and at the padding of the last window.",
    each=probes.as_srt,
    on=Usable.SUCCESS,
)
def srt_inside(exchange: Exchange) -> Iterator[Outcome]:
    """SubRip cues lie inside the recording.

    Words that are shown behind its end are never seen.
    """
    yield from _outside([(cue.start_s, cue.end_s) for cue in _cues(exchange, subtitles.srt)], "cue")


@check(
    "transcription.srt.same",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, response_format",
    remedy="Write all formats from one result, the last segment too.",
    joint=[probes.as_json, probes.as_srt],
    on=Usable.SUCCESS,
)
def srt_same(whole: Exchange, cued: Exchange) -> Iterator[Outcome]:
    """SubRip cues hold the same words as JSON.

    What is missing there nobody reads.
    """
    yield from _differs(" ".join(cue.text for cue in _cues(cued, subtitles.srt)), _text(whole) or "", "body")


@check(
    "transcription.vtt.cues",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{WEBVTT}; {API}, response_format",
    remedy="Begin with the line WEBVTT; write each cue as a line 00:00.000 --> 00:00.000 and its words.",
    each=probes.as_vtt,
    on=Usable.COMPLETE,
)
def vtt_cues(exchange: Exchange) -> Iterator[Outcome]:
    """WebVTT subtitles can be read: the header, and cues with their times.

    Browsers ignore the whole file where its first line is another, and SubRip's commas are not read.
    """
    yield from _unreadable(exchange, subtitles.vtt, "WebVTT subtitles")


@check(
    "transcription.vtt.order",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{WEBVTT}: a cue's start is not before that of the cue ahead, and before its own end",
    remedy="Sort cues by their beginning; end each after it begins.",
    each=probes.as_vtt,
    on=Usable.SUCCESS,
)
def vtt_order(exchange: Exchange) -> Iterator[Outcome]:
    """The times of WebVTT cues rise.

    Browsers never show a cue that ends before it begins.
    """
    yield from _disordered([(cue.start_s, cue.end_s) for cue in _cues(exchange, subtitles.vtt)], "cue")


@check(
    "transcription.vtt.inside",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=WEBVTT,
    remedy="Look at the unit of your times, and at the padding of the last window.",
    each=probes.as_vtt,
    on=Usable.SUCCESS,
)
def vtt_inside(exchange: Exchange) -> Iterator[Outcome]:
    """WebVTT cues lie inside the recording.

    Words that are shown behind its end are never seen.
    """
    yield from _outside([(cue.start_s, cue.end_s) for cue in _cues(exchange, subtitles.vtt)], "cue")


@check(
    "transcription.vtt.same",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, response_format",
    remedy="Write all formats from one result, the last segment too.",
    joint=[probes.as_json, probes.as_vtt],
    on=Usable.SUCCESS,
)
def vtt_same(whole: Exchange, cued: Exchange) -> Iterator[Outcome]:
    """WebVTT cues hold the same words as JSON.

    What is missing there nobody reads.
    """
    yield from _differs(" ".join(cue.text for cue in _cues(cued, subtitles.vtt)), _text(whole) or "", "body")


@check(
    "transcription.subtitles_type",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, response_format; OpenAI SDK, parsing by content type",
    remedy="Label subtitles text/plain, text/vtt or application/x-subrip.",
    each=(probes.as_srt, probes.as_vtt),
    on=Usable.SUCCESS,
)
def subtitles_type(exchange: Exchange) -> Iterator[Finding]:
    """Subtitles are labelled as text, and not as JSON.

    The SDK parses what is labelled as JSON, and throws at the first cue.
    """
    if not exchange.media_type.startswith("text/") and exchange.media_type != "application/x-subrip":
        got = exchange.media_type or "none"
        yield Finding("text/plain, text/vtt or application/x-subrip", got, at="header Content-Type")


# The verbose form


def _segments(exchange: Exchange) -> list[dict[str, Any]]:
    return objects(exchange.answer.get("segments"))


def _times(exchange: Exchange) -> list[tuple[float, float]]:
    pairs = ((segment.get("start"), segment.get("end")) for segment in _segments(exchange))
    return [(start, end) for start, end in pairs if is_number(start) and is_number(end)]


@check(
    "transcription.verbose.shape",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, verbose_json",
    remedy="Compare the answer with schemas/transcription/transcription_verbose.json; or refuse the format with a 400.",
    each=probes.as_verbose,
    on=Usable.COMPLETE,
)
def verbose_shape(exchange: Exchange) -> Iterator[Outcome]:
    """The verbose form has text, language, duration, and segments with their times.

    Who asks for it came for the times, and typed SDKs read all of them.
    """
    refused = rules.declined(exchange, "verbose_json")
    if refused:
        yield refused
    elif isinstance(exchange.json, dict):
        yield from rules.misshapen(exchange, "transcription/transcription_verbose.json")


@check(
    "transcription.verbose.duration",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, verbose_json: duration in seconds",
    remedy="Tell the length of the recording, in seconds, and not that of the window or of the computing.",
    each=probes.as_verbose,
    on=Usable.JSON,
)
def verbose_duration(exchange: Exchange) -> Iterator[Outcome]:
    """`duration` is the length of the recording in seconds.

    Speech is charged by it.
    """
    said = exchange.answer.get("duration")
    try:
        seconds = float(said) if isinstance(said, str) or is_number(said) else None
    except (ValueError, OverflowError):
        seconds = -1.0
    if seconds is not None and not abs(seconds - _duration_s()) <= SAME_LENGTH_S:
        yield Finding(f"about {_duration_s():.2f}", show(said), at="/duration")


@check(
    "transcription.verbose.language",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, verbose_json: language",
    remedy="Name the language that was given or detected.",
    each=probes.as_verbose,
    on=Usable.JSON,
)
def verbose_language(exchange: Exchange) -> Iterator[Finding]:
    """`language` names the language of the words.

    Callers choose by it where to send the text next.
    """
    said = exchange.answer.get("language")
    if isinstance(said, str) and not re.search(r"[^\W\d_]{2}", said):
        yield Finding("the name of a language", show(said) or '""', at="/language")


@check(
    "transcription.verbose.order",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, verbose_json: segments",
    remedy="Sort segments by their beginning; end each after it begins.",
    each=probes.as_verbose,
    on=Usable.JSON,
)
def verbose_order(exchange: Exchange) -> Iterator[Outcome]:
    """The times of segments rise.

    Editors cut the recording at them.
    """
    yield from _disordered(_times(exchange), "segment")


@check(
    "transcription.verbose.inside",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source=f"{API}, verbose_json: segments",
    remedy="Look at the unit of your times, and at the padding of the last window.",
    each=probes.as_verbose,
    on=Usable.JSON,
)
def verbose_inside(exchange: Exchange) -> Iterator[Outcome]:
    """Segments lie inside the recording.

    Times in milliseconds, or of the padded window, lead behind its end.
    """
    yield from _outside(_times(exchange), "segment")


@check(
    "transcription.verbose.whole",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, verbose_json: segments",
    remedy="Make `text` by joining the segments.",
    each=probes.as_verbose,
    on=Usable.JSON,
)
def verbose_whole(exchange: Exchange) -> Iterator[Outcome]:
    """The segments together hold the words of `text`.

    Words that are in no segment have no time.
    """
    joined = " ".join(text for segment in _segments(exchange) if isinstance(text := segment.get("text"), str))
    yield from _differs(joined, _text(exchange) or "", "/segments")


@check(
    "transcription.verbose.same",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, response_format",
    remedy="Write all formats from one result.",
    joint=[probes.as_json, probes.as_verbose],
    on=Usable.JSON,
)
def verbose_same(short: Exchange, verbose: Exchange) -> Iterator[Outcome]:
    """The verbose form tells the same words as the short one.

    A format is a form, not another result.
    """
    yield from _differs(_text(verbose) or "", _text(short) or "", "/text")


# Time and refusals


@check(
    "transcription.latency",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=rules.GUIDE,
    remedy="Keep the model warm; two seconds of sound need no longer than a few of them.",
    each=probes.as_json,
    on=Usable.SUCCESS,
)
def latency(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """A short recording is transcribed within 30 seconds.

    It is what the hub allows a request that does not stream.
    """
    yield from whole_in_time(exchange, facts)


@check(
    "transcription.no_sound",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{rules.API}: 400",
    remedy="Answer 400 to a file that cannot be decoded as sound.",
    each=probes.no_sound,
    on=Usable.RESPONSE,
)
def no_sound(exchange: Exchange) -> Iterator[Outcome]:
    """A file that is no recording is refused.

    Models hear words in any noise; they would be charged, and believed.
    """
    yield from must_refuse(exchange, "the file is no recording")


@check(
    "transcription.no_file",
    level=Level.SHOULD,
    lenses=[Lens.SPEC, Lens.OPENAI],
    source=f"{rules.API}: 400; {SPEC}, required fields",
    remedy="Answer 400, naming `file`, to a form without one.",
    each=probes.no_file,
    on=Usable.RESPONSE,
)
def no_file(exchange: Exchange) -> Iterator[Outcome]:
    """A form without a recording is refused.

    A transcription of nothing hides the caller's mistake.
    """
    yield from must_refuse(exchange, "the file is missing")


@check(
    "transcription.unknown_format",
    level=Level.SHOULD,
    lenses=[Lens.SPEC, Lens.OPENAI],
    source=f"{rules.API}: 400; {SPEC}, response_format",
    remedy="Refuse formats that you do not write.",
    each=probes.unknown_format,
    on=Usable.RESPONSE,
)
def unknown_format(exchange: Exchange) -> Iterator[Outcome]:
    """A format that does not exist is refused.

    Another one in its place breaks the program that reads it, at a place far from the mistake.
    """
    yield from must_refuse(exchange, "there is no such format")


@check(
    "transcription.unknown_model",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{rules.API}: 404",
    remedy="Answer 404, code model_not_found, to a model that you do not serve.",
    each=probes.unknown_model,
    on=Usable.RESPONSE,
)
def unknown_model(exchange: Exchange) -> Iterator[Outcome]:
    """A model that does not exist is refused.

    An answer by some other model misleads the caller, who is charged for what was not asked.
    """
    yield from must_refuse(exchange, "there is no such model")


@check(
    "transcription.no_key",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{rules.API}: 401",
    remedy="Ask for a key on this route as on every other.",
    each=probes.no_key,
    on=Usable.RESPONSE,
)
def no_key(exchange: Exchange) -> Iterator[Finding]:
    """A recording without a key gets 401.

    Whatever is served without a key is charged to nobody.
    """
    yield from rules.keyless(exchange)

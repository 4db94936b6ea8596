"""Faults and variations of transcriptions."""

from __future__ import annotations

import json

from roadworthy.sandbox.families.transcription import HEARD
from roadworthy.sandbox.mutation import fault, variation
from roadworthy.sandbox.turn import ApiError, Frame, Kind, Stage, Turn

SUBJECTS = ("acme/automatic-speech-recognition=automatic-speech-recognition@openai",)
ANSWERS, ERROR = {Kind.TRANSCRIPTION}, {Kind.ERROR}
PATH = "/v1/audio/transcriptions"


def _format(turn: Turn) -> str:
    return str(turn.body.get("response_format") or "")


def _rewrite(turn: Turn, old: str, new: str) -> None:
    turn.payload = turn.payload.decode().replace(old, new).encode()


@fault(
    "transcription.json_refused", caught_by={"transcription.answered"}, at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS
)
def json_refused(turn: Turn) -> None:
    """The default format is refused where it is named."""
    if _format(turn) == "json":
        raise ApiError(400, "leave `response_format` out", param="response_format")


@fault("transcription.as_text", caught_by={"transcription.strict_json"}, at=Stage.HEAD, on=ANSWERS, subjects=SUBJECTS)
def as_text(turn: Turn) -> None:
    """JSON is labelled text/plain."""
    if _format(turn) in ("", "json"):
        turn.headers["content-type"] = "text/plain"


@fault(
    "transcription.verbose_trailing",
    caught_by={"transcription.strict_json"},
    at=Stage.FRAMES,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def verbose_trailing(turn: Turn) -> None:
    """The verbose form ends with a comma too many."""
    if _format(turn) == "verbose_json":
        turn.frames.append(Frame(b","))


@fault(
    "transcription.transcript_key", caught_by={"transcription.shape"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS
)
def transcript_key(turn: Turn) -> None:
    """The words stand under `transcript`."""
    if not _format(turn):
        turn.payload["transcript"] = turn.payload.pop("text")


@fault("transcription.text_list", caught_by={"transcription.shape"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def text_list(turn: Turn) -> None:
    """The text is an array of words."""
    if not _format(turn):
        turn.payload["text"] = turn.payload["text"].split()


@fault(
    "transcription.nothing_heard", caught_by={"transcription.words"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS
)
def nothing_heard(turn: Turn) -> None:
    """The default format has an empty text."""
    if not _format(turn):
        turn.payload["text"] = ""


@fault(
    "transcription.text_as_json",
    caught_by={"transcription.text.plain"},
    at=Stage.PAYLOAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def text_as_json(turn: Turn) -> None:
    """Plain text comes as JSON."""
    if _format(turn) == "text":
        turn.payload = {"text": turn.payload.decode().strip()}
        turn.headers["content-type"] = "application/json"


@fault(
    "transcription.text_quoted", caught_by={"transcription.text.plain"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS
)
def text_quoted(turn: Turn) -> None:
    """Plain text has quotes around it, as a framework's encoder writes strings."""
    if _format(turn) == "text":
        turn.payload = json.dumps(turn.payload.decode().strip()).encode()


@fault("transcription.text_cut", caught_by={"transcription.text.same"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def text_cut(turn: Turn) -> None:
    """Plain text lacks its last words."""
    if _format(turn) == "text":
        turn.payload = b" ".join(turn.payload.split()[:-2])


@fault(
    "transcription.srt_as_text", caught_by={"transcription.srt.cues"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS
)
def srt_as_text(turn: Turn) -> None:
    """SubRip subtitles hold the words alone."""
    if _format(turn) == "srt":
        turn.payload = " ".join(segment.text for segment in turn.body[HEARD]).encode()


@fault(
    "transcription.srt_disordered",
    caught_by={"transcription.srt.order"},
    at=Stage.ANSWER,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def srt_disordered(turn: Turn) -> None:
    """SubRip cues come in another order."""
    if _format(turn) == "srt":
        first, last = turn.body[HEARD][0], turn.body[HEARD][-1]
        first.start, last.start, first.end, last.end = last.start, first.start, last.end, first.end


@fault(
    "transcription.srt_outside", caught_by={"transcription.srt.inside"}, at=Stage.ANSWER, on=ANSWERS, subjects=SUBJECTS
)
def srt_outside(turn: Turn) -> None:
    """The last of the SubRip cues goes on to the end of a window of 30 seconds."""
    if _format(turn) == "srt":
        turn.body[HEARD][-1].end = 30.0


@fault(
    "transcription.srt_last_lost", caught_by={"transcription.srt.same"}, at=Stage.ANSWER, on=ANSWERS, subjects=SUBJECTS
)
def srt_last_lost(turn: Turn) -> None:
    """SubRip subtitles lack their last cue."""
    if _format(turn) == "srt":
        turn.body[HEARD].pop()


@fault(
    "transcription.srt_as_json",
    caught_by={"transcription.subtitles_type"},
    at=Stage.HEAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def srt_as_json(turn: Turn) -> None:
    """SubRip subtitles are labelled as JSON."""
    if _format(turn) == "srt":
        turn.headers["content-type"] = "application/json"


@fault(
    "transcription.vtt_as_text", caught_by={"transcription.vtt.cues"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS
)
def vtt_as_text(turn: Turn) -> None:
    """WebVTT subtitles hold the words alone."""
    if _format(turn) == "vtt":
        turn.payload = " ".join(segment.text for segment in turn.body[HEARD]).encode()


@fault(
    "transcription.vtt_disordered",
    caught_by={"transcription.vtt.order"},
    at=Stage.ANSWER,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def vtt_disordered(turn: Turn) -> None:
    """WebVTT cues come in another order."""
    if _format(turn) == "vtt":
        first, last = turn.body[HEARD][0], turn.body[HEARD][-1]
        first.start, last.start, first.end, last.end = last.start, first.start, last.end, first.end


@fault(
    "transcription.vtt_outside", caught_by={"transcription.vtt.inside"}, at=Stage.ANSWER, on=ANSWERS, subjects=SUBJECTS
)
def vtt_outside(turn: Turn) -> None:
    """The last of the WebVTT cues goes on to the end of a window of 30 seconds."""
    if _format(turn) == "vtt":
        turn.body[HEARD][-1].end = 30.0


@fault(
    "transcription.vtt_last_lost", caught_by={"transcription.vtt.same"}, at=Stage.ANSWER, on=ANSWERS, subjects=SUBJECTS
)
def vtt_last_lost(turn: Turn) -> None:
    """WebVTT subtitles lack their last cue."""
    if _format(turn) == "vtt":
        turn.body[HEARD].pop()


@fault(
    "transcription.vtt_as_json",
    caught_by={"transcription.subtitles_type"},
    at=Stage.HEAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def vtt_as_json(turn: Turn) -> None:
    """WebVTT subtitles are labelled as JSON."""
    if _format(turn) == "vtt":
        turn.headers["content-type"] = "application/json"


@fault(
    "transcription.srt_points", caught_by={"transcription.srt.cues"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS
)
def srt_points(turn: Turn) -> None:
    """SubRip times have points for commas."""
    if _format(turn) == "srt":
        _rewrite(turn, ",", ".")


@fault(
    "transcription.srt_unnumbered",
    caught_by={"transcription.srt.cues"},
    at=Stage.PAYLOAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def srt_unnumbered(turn: Turn) -> None:
    """SubRip cues have no numbers."""
    if _format(turn) == "srt":
        blocks = turn.payload.decode().split("\n\n")
        turn.payload = "\n\n".join(block.partition("\n")[2] for block in blocks).encode()


@fault(
    "transcription.srt_backwards", caught_by={"transcription.srt.order"}, at=Stage.ANSWER, on=ANSWERS, subjects=SUBJECTS
)
def srt_backwards(turn: Turn) -> None:
    """A SubRip cue ends before it begins."""
    if _format(turn) == "srt":
        segment = turn.body[HEARD][-1]
        segment.start, segment.end = segment.end, segment.start


@fault(
    "transcription.vtt_no_header", caught_by={"transcription.vtt.cues"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS
)
def vtt_no_header(turn: Turn) -> None:
    """WebVTT subtitles lack their first line."""
    if _format(turn) == "vtt":
        _rewrite(turn, "WEBVTT\n\n", "")


@fault(
    "transcription.vtt_commas", caught_by={"transcription.vtt.cues"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS
)
def vtt_commas(turn: Turn) -> None:
    """WebVTT times have commas for points."""
    if _format(turn) == "vtt":
        _rewrite(turn, ".", ",")


@fault(
    "transcription.vtt_other_words",
    caught_by={"transcription.vtt.same"},
    at=Stage.ANSWER,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def vtt_other_words(turn: Turn) -> None:
    """WebVTT subtitles are of another recording."""
    if _format(turn) == "vtt":
        for segment in turn.body[HEARD]:
            segment.text = "music plays"


@fault(
    "transcription.verbose_is_short",
    caught_by={"transcription.verbose.shape"},
    at=Stage.PAYLOAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def verbose_is_short(turn: Turn) -> None:
    """The verbose form is the short one."""
    if _format(turn) == "verbose_json":
        turn.payload = {"text": turn.payload["text"]}


@fault(
    "transcription.verbose_times_text",
    caught_by={"transcription.verbose.shape"},
    at=Stage.PAYLOAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def verbose_times_text(turn: Turn) -> None:
    """The times of segments are texts."""
    if _format(turn) == "verbose_json":
        for segment in turn.payload["segments"]:
            segment["start"] = str(segment["start"])


@fault(
    "transcription.duration_of_window",
    caught_by={"transcription.verbose.duration"},
    at=Stage.PAYLOAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def duration_of_window(turn: Turn) -> None:
    """The duration is that of the padded window."""
    if _format(turn) == "verbose_json":
        turn.payload["duration"] = 30.0


@fault(
    "transcription.duration_ms",
    caught_by={"transcription.verbose.duration"},
    at=Stage.PAYLOAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def duration_ms(turn: Turn) -> None:
    """The duration is in milliseconds."""
    if _format(turn) == "verbose_json":
        turn.payload["duration"] *= 1000


@fault(
    "transcription.language_empty",
    caught_by={"transcription.verbose.language"},
    at=Stage.PAYLOAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def language_empty(turn: Turn) -> None:
    """The language is an empty text."""
    if _format(turn) == "verbose_json":
        turn.payload["language"] = ""


@fault(
    "transcription.segments_disordered",
    caught_by={"transcription.verbose.order"},
    at=Stage.ANSWER,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def segments_disordered(turn: Turn) -> None:
    """Segments come with their times exchanged."""
    if _format(turn) == "verbose_json":
        first, last = turn.body[HEARD][0], turn.body[HEARD][-1]
        first.start, last.start, first.end, last.end = last.start, first.start, last.end, first.end


@fault(
    "transcription.segments_outside",
    caught_by={"transcription.verbose.inside"},
    at=Stage.PAYLOAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def segments_outside(turn: Turn) -> None:
    """The times of segments are in hundredths of a second."""
    if _format(turn) == "verbose_json":
        for segment in turn.payload["segments"]:
            segment["start"], segment["end"] = 100 * segment["start"], 100 * segment["end"]


@fault(
    "transcription.segments_incomplete",
    caught_by={"transcription.verbose.whole"},
    at=Stage.PAYLOAD,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def segments_incomplete(turn: Turn) -> None:
    """The last segment is missing."""
    if _format(turn) == "verbose_json":
        turn.payload["segments"].pop()


@fault(
    "transcription.verbose_incomplete",
    caught_by={"transcription.verbose.same"},
    at=Stage.ANSWER,
    on=ANSWERS,
    subjects=SUBJECTS,
)
def verbose_incomplete(turn: Turn) -> None:
    """The verbose form lacks the last words."""
    if _format(turn) == "verbose_json":
        turn.body[HEARD].pop()


@fault("transcription.slow", caught_by={"transcription.latency"}, at=Stage.FRAMES, on=ANSWERS, subjects=SUBJECTS)
def slow(turn: Turn) -> None:
    """Answers take their time; the test shrinks the limit."""
    if _format(turn) == "json":
        turn.frames[0].delay_s = 0.6


@fault("transcription.any_file", caught_by={"transcription.no_sound"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_file(turn: Turn) -> None:
    """Words are heard in any file."""
    if turn.path == PATH:
        turn.skip.add("audio")


@fault("transcription.any_file_crashes", caught_by={"errors.no_5xx"}, at=Stage.HEAD, on=ERROR, subjects=SUBJECTS)
def any_file_crashes(turn: Turn) -> None:
    """A file that is no recording makes the server fail."""
    if turn.status == 400 and b"neither a picture nor a sound" in turn.raw:
        turn.status = 500


@fault("transcription.file_optional", caught_by={"transcription.no_file"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def file_optional(turn: Turn) -> None:
    """A form without a recording is answered."""
    if turn.path == PATH and b"filename=" not in turn.raw and b"Content-Disposition" in turn.raw:
        turn.skip.add("file")


@fault("transcription.any_format", caught_by={"transcription.unknown_format"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_format(turn: Turn) -> None:
    """Unknown formats are taken for JSON."""
    if turn.path == PATH:
        turn.skip.add("response_format")


@fault("transcription.any_model", caught_by={"transcription.unknown_model"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_model(turn: Turn) -> None:
    """Whatever model is asked for, the one at hand answers."""
    if turn.path == PATH:
        turn.skip.add("model")


@fault("transcription.no_key_needed", caught_by={"transcription.no_key"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def no_key_needed(turn: Turn) -> None:
    """The route asks for no key."""
    if turn.path == PATH:
        turn.skip.add("auth")


# Legal variations


@variation("transcription_json_only", at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def json_only(turn: Turn) -> None:
    """Formats other than JSON are refused in words."""
    if _format(turn) not in ("", "json"):
        raise ApiError(400, "`response_format` must be json", param="response_format")


@variation("transcription_spelling", at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def spelling(turn: Turn) -> None:
    """JSON has capitals, a full stop and a usage; the verbose form a duration as text and a language code."""
    if isinstance(turn.payload, dict):
        turn.payload["text"] = f" {turn.payload['text'].capitalize()}."
        turn.payload["usage"] = {"type": "duration", "seconds": 3}
        if "duration" in turn.payload:
            turn.payload |= {"duration": str(turn.payload["duration"]), "language": "en", "words": None}


@variation("transcription_subtitles", at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def subtitle_forms(turn: Turn) -> None:
    """Subtitles are text/plain with CR LF; SubRip counts from 0; WebVTT has a title, a note and short times."""
    if _format(turn) == "vtt":
        _rewrite(turn, "WEBVTT\n\n", "WEBVTT - a recording\n\nNOTE made by machine\n\nintro\n")
        _rewrite(turn, "00:00:", "00:")
    if _format(turn) == "srt":
        turn.payload = b"\xef\xbb\xbf0" + turn.payload[1:]
    if _format(turn) in ("srt", "vtt"):
        turn.payload = turn.payload.replace(b"\n", b"\r\n")
        turn.headers["content-type"] = "text/plain"

"""Faults and variations of speech."""

from __future__ import annotations

import base64
import struct

from roadworthy.sandbox import media
from roadworthy.sandbox.mutation import fault, variation
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn

SUBJECTS = ("acme/text-to-speech=text-to-speech@openai",)
ANSWERS, ERROR = {Kind.SPEECH}, {Kind.ERROR}
PATH = "/v1/audio/speech"
MANY_CHARACTERS = 100


def _format(turn: Turn) -> str:
    return str(turn.body.get("response_format") or "")


def _is_long(turn: Turn) -> bool:
    """Whether this is the long text at its own speed."""
    return len(turn.body["input"]) > MANY_CHARACTERS and "speed" not in turn.body


@fault("speech.long_refused", caught_by={"speech.answered"}, at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def long_refused(turn: Turn) -> None:
    """Texts of more than a hundred characters are refused."""
    if _is_long(turn):
        raise ApiError(400, f"`input` may have {MANY_CHARACTERS} characters", param="input")


@fault("speech.in_json", caught_by={"speech.sound"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def in_json(turn: Turn) -> None:
    """Sound comes as base64 inside JSON, under an audio type."""
    if _format(turn) == "opus":
        turn.payload = {"audio": base64.b64encode(turn.payload).decode()}


@fault("speech.cut_off", caught_by={"speech.sound"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def cut_off(turn: Turn) -> None:
    """WAV breaks off half-way."""
    if _format(turn) == "wav":
        turn.payload = turn.payload[: len(turn.payload) // 2]


@fault("speech.header_only", caught_by={"speech.sound"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def header_only(turn: Turn) -> None:
    """WAV has a header and no samples."""
    if _format(turn) == "wav":
        turn.payload = media.packed(b"")


@fault("speech.bare_samples", caught_by={"speech.sound"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def bare_samples(turn: Turn) -> None:
    """WAV lacks its header."""
    if _format(turn) == "wav":
        turn.payload = turn.payload[44:]


@fault("speech.endless", caught_by={"speech.sound"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def endless(turn: Turn) -> None:
    """The long text is eleven minutes of sound, packed into few bytes: the model did not find its end."""
    if _is_long(turn):
        quiet = media.packed(bytes(2 * media.SAMPLE_RATE_HZ * 660))
        turn.payload = media.encoded(quiet, "flac")


@fault("speech.octets", caught_by={"speech.type.audio"}, at=Stage.HEAD, on=ANSWERS, subjects=SUBJECTS)
def octets(turn: Turn) -> None:
    """Sound is labelled application/octet-stream."""
    turn.headers["content-type"] = "application/octet-stream"


@fault("speech.no_type", caught_by={"speech.type.audio"}, at=Stage.HEAD, on=ANSWERS, subjects=SUBJECTS)
def no_type(turn: Turn) -> None:
    """Sound has no content type."""
    del turn.headers["content-type"]


@fault("speech.always_mpeg", caught_by={"speech.type.fits"}, at=Stage.HEAD, on=ANSWERS, subjects=SUBJECTS)
def always_mpeg(turn: Turn) -> None:
    """All sound is labelled audio/mpeg."""
    turn.headers["content-type"] = "audio/mpeg"


@fault("speech.flac_by_default", caught_by={"speech.default"}, at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def flac_by_default(turn: Turn) -> None:
    """The default format is FLAC."""
    turn.body.setdefault("response_format", "flac")


@fault("speech.wav_ignored", caught_by={"speech.format.wav"}, at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def wav_ignored(turn: Turn) -> None:
    """WAV is ignored."""
    if _format(turn) == "wav":
        del turn.body["response_format"]


@fault("speech.opus_as_wav", caught_by={"speech.format.opus"}, at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def opus_as_wav(turn: Turn) -> None:
    """WAV comes in place of Opus."""
    if _format(turn) == "opus":
        turn.body["response_format"] = "wav"


@fault("speech.silence", caught_by={"speech.silent"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def silence(turn: Turn) -> None:
    """WAV is silence."""
    if _format(turn) == "wav":
        turn.payload = media.packed(bytes(len(turn.payload) - 44))


@fault("speech.a_click", caught_by={"speech.duration.sane"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def a_click(turn: Turn) -> None:
    """Opus is a click and no speech."""
    if _format(turn) == "opus":
        turn.payload = media.encoded(media.packed(media.wav("tick")[44 : 44 + 3200]), "opus")


@fault("speech.babbles", caught_by={"speech.duration.sane"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def babbles(turn: Turn) -> None:
    """After a sentence, the model babbles on for a minute and more."""
    if _format(turn) == "wav":
        turn.payload = media.packed(media.wav("babble " * 200)[44:] * 3)


@fault("speech.text_cut", caught_by={"speech.duration.whole"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def text_cut(turn: Turn) -> None:
    """A long text is cut after two seconds and a bit."""
    if _is_long(turn) or "speed" in turn.body:
        seconds = 2.9 / (turn.body.get("speed") or 1)
        samples = media.wav(turn.body["input"])[44 : 44 + 2 * int(seconds * media.SAMPLE_RATE_HZ)]
        turn.payload = media.encoded(media.packed(samples), "mp3")


@fault("speech.padded", caught_by={"speech.duration.longer"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def padded(turn: Turn) -> None:
    """Short texts are padded to the length of long ones."""
    if not _format(turn) and len(turn.body["input"]) < MANY_CHARACTERS:
        turn.payload = media.sound(turn.body["input"] * 8, "mp3")


@fault("speech.speed_ignored", caught_by={"speech.speed"}, at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def speed_ignored(turn: Turn) -> None:
    """`speed` is ignored."""
    turn.body.pop("speed", None)


@fault("speech.odd_rate", caught_by={"speech.rate.plausible"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def odd_rate(turn: Turn) -> None:
    """WAV has 7,000 samples in a second."""
    if _format(turn) == "wav":
        turn.payload = turn.payload[:24] + struct.pack("<II", 7_000, 14_000) + turn.payload[32:]


@fault("speech.changing_rate", caught_by={"speech.rate.steady"}, at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def changing_rate(turn: Turn) -> None:
    """Long texts have another sample rate."""
    if _is_long(turn):
        turn.payload = media.encoded(media.wav(turn.body["input"]), "mp3", 24_000)


@fault("speech.slow", caught_by={"speech.latency"}, at=Stage.FRAMES, on=ANSWERS, subjects=SUBJECTS)
def slow(turn: Turn) -> None:
    """Long texts take their time; the test shrinks the limit."""
    if _is_long(turn):
        turn.frames[0].delay_s = 1.8


@fault("speech.empty_spoken", caught_by={"speech.empty"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def empty_spoken(turn: Turn) -> None:
    """An empty text is spoken."""
    if turn.path == PATH:
        turn.skip.add("input")


@fault("speech.empty_crashes", caught_by={"errors.no_5xx"}, at=Stage.HEAD, on=ERROR, subjects=SUBJECTS)
def empty_crashes(turn: Turn) -> None:
    """An empty text makes the server fail."""
    if turn.status == 400 and b'"input": ""' in turn.raw:
        turn.status = 500


@fault("speech.errors_as_sound", caught_by={"errors.json"}, at=Stage.HEAD, on=ERROR, subjects=SUBJECTS)
def errors_as_sound(turn: Turn) -> None:
    """Errors are labelled as sound."""
    if turn.path == PATH and turn.status == 400:
        turn.headers["content-type"] = "audio/mpeg"


@fault("speech.any_format", caught_by={"speech.unknown_format"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_format(turn: Turn) -> None:
    """Unknown formats are taken for the default."""
    if turn.path == PATH:
        turn.skip.add("response_format")


@fault("speech.any_speed", caught_by={"speech.out_of_range"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_speed(turn: Turn) -> None:
    """Speeds are clamped in silence."""
    if turn.path == PATH:
        turn.skip.add("speed")


@fault("speech.any_model", caught_by={"speech.unknown_model"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def any_model(turn: Turn) -> None:
    """Whatever model is asked for, the one at hand answers."""
    if turn.path == PATH:
        turn.skip.add("model")


@fault("speech.no_key_needed", caught_by={"speech.no_key"}, at=Stage.ARRIVAL, subjects=SUBJECTS)
def no_key_needed(turn: Turn) -> None:
    """The route asks for no key."""
    if turn.path == PATH:
        turn.skip.add("auth")


# Legal variations


@variation("speech_streamed_wav", at=Stage.PAYLOAD, on=ANSWERS, subjects=SUBJECTS)
def streamed_wav(turn: Turn) -> None:
    """A WAV is written before its size is known: the header says the largest there is."""
    if _format(turn) == "wav":
        unknown = b"\xff\xff\xff\xff"
        turn.payload = turn.payload[:4] + unknown + turn.payload[8:40] + unknown + turn.payload[44:]
        turn.headers["content-type"] = "audio/x-wav"


@variation("speech_mp3_only", at=Stage.REQUEST, on=ANSWERS, subjects=SUBJECTS)
def mp3_only(turn: Turn) -> None:
    """Other formats than MP3, and speeds, are refused in words."""
    if _format(turn) or "speed" in turn.body:
        raise ApiError(400, "this model speaks MP3, at one speed", param="response_format")


@variation("speech_other_labels", at=Stage.HEAD, on=ANSWERS, subjects=SUBJECTS)
def other_labels(turn: Turn) -> None:
    """Types have other names in use, and parameters."""
    names = {"audio/mpeg": "audio/mp3", "audio/ogg": "audio/ogg; codecs=opus", "audio/wav": "audio/vnd.wave"}
    turn.headers["content-type"] = names.get(turn.headers["content-type"], turn.headers["content-type"])

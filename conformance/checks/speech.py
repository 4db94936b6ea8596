"""Checks of speech."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from roadworthy.conformance.check import Usable, check
from roadworthy.conformance.exchange import Exchange
from roadworthy.conformance.facts import Facts
from roadworthy.conformance.probes import speech as probes
from roadworthy.conformance.reading import media
from roadworthy.conformance.reading import route_rules as rules
from roadworthy.conformance.reading.in_time import whole_in_time
from roadworthy.conformance.reading.media import Audio, MediaError
from roadworthy.conformance.reading.refusal import must_refuse
from roadworthy.conformance.verdict import Finding, Lens, Level, NotApplicable, Outcome

API = "OpenAI API reference, audio, speech"
SPEC = "published inference API, POST /v1/audio/speech"
BOTH = (Lens.HUB, Lens.OPENAI)
ALL = (Lens.HUB, Lens.SPEC, Lens.OPENAI)
LONGEST_S = 60.0
HASTIEST_S_PER_WORD = 0.1
"""Nobody speaks ten words in a second; what is shorter was cut."""
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 8_000, 96_000
LONGER, SHORTER = 1.5, 0.8
"""The factors that a text of seven times the length, and twice the speed, change the duration by at least."""


@lru_cache(maxsize=32)
def _decoded(data: bytes) -> Audio | str:
    """The sound, or why there is none; several checks ask for the same one."""
    try:
        return media.audio(data)
    except MediaError as error:
        return str(error)


def _sound(exchange: Exchange) -> Audio | None:
    decoded = _decoded(exchange.reply.body)
    return decoded if isinstance(decoded, Audio) else None


def _unheard() -> NotApplicable:
    return NotApplicable("there is no sound to look at; see speech.sound")


# The answer


@check(
    "speech.answered",
    level=Level.MUST,
    lenses=ALL,
    source=SPEC,
    remedy="Serve POST /v1/audio/speech for this model; `model` and `input` are a whole request.",
    each=(probes.plain, probes.long),
    on=Usable.COMPLETE,
)
def answered(exchange: Exchange) -> Iterator[Finding]:
    """A text is answered with 200.

    The model is listed for text to speech, and this is the route that clients of the OpenAI SDK use for it.
    """
    yield from rules.not_answered(exchange)


@check(
    "speech.sound",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}: the audio file content",
    remedy="Answer with the bytes of a whole audio file: no JSON around them, and nothing cut off.",
    each=probes.ANSWERS,
    on=Usable.SUCCESS,
)
def sound(exchange: Exchange) -> Iterator[Finding]:
    """The body is sound that can be decoded.

    Players refuse anything else, and users hear nothing.
    """
    decoded = _decoded(exchange.reply.body)
    if isinstance(decoded, str):
        yield Finding("an audio file", decoded, at="body")


@check(
    "speech.type.audio",
    level=Level.MUST,
    lenses=BOTH,
    source="JavaScript inference client, text to speech; RFC 9110, section 8.3",
    remedy="Label sound with its audio type, such as audio/mpeg or audio/wav.",
    each=probes.ANSWERS,
    on=Usable.SUCCESS,
)
def type_audio(exchange: Exchange) -> Iterator[Finding]:
    """Sound is labelled as audio.

    Browsers play a blob by its type, and clients read JSON or text where that is what the label says.
    """
    if not exchange.media_type.startswith("audio/"):
        yield Finding("audio/*", exchange.media_type or "none", at="header Content-Type")


@check(
    "speech.type.fits",
    level=Level.SHOULD,
    lenses=BOTH,
    source="RFC 9110, section 8.3; media types of audio",
    remedy="Take the content type from the format that was really written.",
    each=probes.ANSWERS,
    on=Usable.SUCCESS,
)
def type_fits(exchange: Exchange) -> Iterator[Outcome]:
    """The content type names the format of the bytes.

    Files get their ending from it, and programs choose their decoder by the ending.
    """
    found = _sound(exchange)
    if found is None or not exchange.media_type.startswith("audio/"):
        yield _unheard()
    elif not media.fits(exchange.media_type, found.format):
        expected = " or ".join(media.MEDIA_TYPES[found.format])
        yield Finding(expected, f"{exchange.media_type}, over {found.format} data", at="header Content-Type")


@check(
    "speech.default",
    level=Level.SHOULD,
    lenses=[Lens.SPEC, Lens.OPENAI],
    source=f"{SPEC}, response_format: mp3 by default",
    remedy="Answer with MP3 where no format is asked for.",
    each=probes.plain,
    on=Usable.SUCCESS,
)
def default(exchange: Exchange) -> Iterator[Outcome]:
    """The format is MP3 where none is asked for.

    Callers write the body into a file that ends in .mp3, as the examples do.
    """
    found = _sound(exchange)
    if found is None:
        yield _unheard()
    elif found.format != "mp3":
        yield Finding("mp3", found.format, at="body")


@check(
    "speech.format.wav",
    level=Level.MUST,
    lenses=ALL,
    source=f"{SPEC}, response_format",
    remedy="Write WAV where it is asked for, or refuse it with a 400.",
    each=probes.as_wav,
    on=Usable.COMPLETE,
)
def format_wav(exchange: Exchange) -> Iterator[Outcome]:
    """WAV comes where WAV was asked for, or is refused.

    Who asks for it feeds the samples to a program that reads nothing else.
    """
    yield from _in_format(exchange, "wav", "WAV")


@check(
    "speech.format.opus",
    level=Level.MUST,
    lenses=ALL,
    source=f"{SPEC}, response_format; RFC 7845",
    remedy="Write Opus in Ogg where it is asked for, or refuse it with a 400.",
    each=probes.as_opus,
    on=Usable.COMPLETE,
)
def format_opus(exchange: Exchange) -> Iterator[Outcome]:
    """Opus comes where Opus was asked for, or is refused.

    Who asks for it streams the packets on, and no other format has them.
    """
    yield from _in_format(exchange, "ogg", "Opus", "webm")


def _in_format(exchange: Exchange, format: str, name: str, other: str = "") -> Iterator[Outcome]:
    refused = rules.declined(exchange, name)
    found = _sound(exchange)
    if refused:
        yield refused
    elif found is None:
        yield _unheard()
    elif found.format not in (format, other):
        yield Finding(f"{name}, or a 400", found.format, at="body")


# The sound


@check(
    "speech.silent",
    level=Level.MUST,
    lenses=BOTH,
    source=API,
    remedy="Look for overflows of half precision, and for samples that are scaled to nothing.",
    each=probes.ANSWERS,
    on=Usable.SUCCESS,
)
def silent(exchange: Exchange) -> Iterator[Outcome]:
    """Something can be heard.

    Silence is charged like speech.
    """
    found = _sound(exchange)
    if found is None:
        yield _unheard()
    elif found.silent:
        yield Finding("sound", f"{found.duration_s:.2f} s of silence", at="body")


@check(
    "speech.duration.sane",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, input",
    remedy="Stop at the end of the text: models that miss it babble on. Tell the real sample rate in the header.",
    each=(probes.plain, probes.as_wav, probes.as_opus),
    on=Usable.SUCCESS,
)
def duration_sane(exchange: Exchange) -> Iterator[Outcome]:
    """A sentence of five words takes more than a moment and less than a minute.

    A wrong sample rate, or a model that never ends, makes it neither.
    """
    found = _sound(exchange)
    least_s = HASTIEST_S_PER_WORD * len(probes.SHORT.split())
    if found is None:
        yield _unheard()
    elif not least_s <= found.duration_s <= LONGEST_S:
        yield Finding(f"{least_s:g} s to {LONGEST_S:g} s", f"{found.duration_s:.3f} s", at="body")


@check(
    "speech.duration.whole",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{API}, input",
    remedy="Speak the whole text: split what is longer than the model's window, and join the parts.",
    each=probes.long,
    on=Usable.SUCCESS,
)
def duration_whole(exchange: Exchange) -> Iterator[Outcome]:
    """A long text is spoken to its end.

    A cut in silence loses the end of the message, and is charged by its characters.
    """
    found = _sound(exchange)
    count = len(probes.LONG.split())
    if found is None:
        yield _unheard()
    elif found.duration_s < HASTIEST_S_PER_WORD * count:
        expected = f"at least {HASTIEST_S_PER_WORD * count:.1f} s for {count} words"
        yield Finding(expected, f"{found.duration_s:.2f} s", at="body")


@check(
    "speech.duration.longer",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{API}, input",
    remedy="Pass the text on to the model, and look at caches whose key leaves it out.",
    joint=[probes.plain, probes.long],
    on=Usable.SUCCESS,
)
def duration_longer(brief: Exchange, long: Exchange) -> Iterator[Outcome]:
    """A text of seven times the length takes longer to speak.

    The same length for every text is a stub's, or another text's.
    """
    one, other = _sound(brief), _sound(long)
    if one is None or other is None:
        yield _unheard()
    elif other.duration_s < LONGER * one.duration_s:
        expected = f"more than {LONGER * one.duration_s:.2f} s"
        yield Finding(expected, f"{other.duration_s:.2f} s", at="body", exchange_id=long.id)


@check(
    "speech.speed",
    level=Level.SHOULD,
    lenses=[Lens.SPEC, Lens.OPENAI],
    source=f"{SPEC}, speed",
    remedy="Pass `speed` on to the model, or refuse it with a 400.",
    joint=[probes.long, probes.fast],
    on=Usable.COMPLETE,
)
def speed(slow: Exchange, fast: Exchange) -> Iterator[Outcome]:
    """`speed` is honoured or refused, and not ignored.

    Readers for the blind set it to what their users can follow.
    """
    refused = rules.declined(fast, "speed")
    one, other = _sound(slow), _sound(fast)
    if refused:
        yield refused
    elif one is None or other is None:
        yield _unheard()
    elif other.duration_s > SHORTER * one.duration_s:
        expected = f"at most {SHORTER * one.duration_s:.2f} s at twice the speed"
        yield Finding(expected, f"{other.duration_s:.2f} s", at="body", exchange_id=fast.id)


@check(
    "speech.rate.plausible",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="WAVE format; audio devices' sample rates",
    remedy="Write the rate that the model really makes, 16,000 to 48,000 Hz as a rule.",
    each=(probes.as_wav, probes.long),
    on=Usable.SUCCESS,
)
def rate_plausible(exchange: Exchange) -> Iterator[Outcome]:
    """The sample rate is one that devices play.

    Another is resampled badly, or refused.
    """
    found = _sound(exchange)
    if found is None:
        yield _unheard()
    elif not LOWEST_RATE_HZ <= found.sample_rate_hz <= HIGHEST_RATE_HZ:
        expected = f"{LOWEST_RATE_HZ:,} to {HIGHEST_RATE_HZ:,} Hz"
        yield Finding(expected, f"{found.sample_rate_hz:,} Hz", at="body")


@check(
    "speech.rate.steady",
    level=Level.SHOULD,
    lenses=[Lens.OPENAI],
    source="WAVE and MP3 formats",
    remedy="Write every answer with one rate and one number of channels.",
    joint=[probes.plain, probes.long],
    on=Usable.SUCCESS,
)
def rate_steady(brief: Exchange, long: Exchange) -> Iterator[Outcome]:
    """Two answers in one format have the same rate and channels.

    Programs join the sentences of a page by putting their samples in a row.
    """
    one, other = _sound(brief), _sound(long)
    if one is None or other is None or one.format != other.format:
        yield _unheard()
    elif (one.sample_rate_hz, one.channels) != (other.sample_rate_hz, other.channels):
        expected = f"{one.sample_rate_hz:,} Hz, {one.channels} channel(s), as before"
        got = f"{other.sample_rate_hz:,} Hz, {other.channels} channel(s)"
        yield Finding(expected, got, at="body", exchange_id=long.id)


# Time and refusals


@check(
    "speech.latency",
    level=Level.SHOULD,
    lenses=[Lens.HUB],
    source=rules.GUIDE,
    remedy="Keep the model warm, and speak long texts in parts.",
    each=probes.long,
    on=Usable.SUCCESS,
)
def latency(exchange: Exchange, facts: Facts) -> Iterator[Outcome]:
    """Two sentences are spoken within 30 seconds.

    It is what the hub allows a request that does not stream.
    """
    yield from whole_in_time(exchange, facts)


@check(
    "speech.empty",
    level=Level.MUST,
    lenses=[Lens.OPENAI],
    source=f"{rules.API}: 400; {SPEC}, required fields",
    remedy="Refuse an empty text.",
    each=probes.empty,
    on=Usable.RESPONSE,
)
def empty(exchange: Exchange) -> Iterator[Outcome]:
    """An empty text is refused.

    Models that are given nothing babble, and the caller's users hear it.
    """
    yield from must_refuse(exchange, "the text is empty")


@check(
    "speech.unknown_format",
    level=Level.SHOULD,
    lenses=[Lens.SPEC, Lens.OPENAI],
    source=f"{rules.API}: 400; {SPEC}, response_format",
    remedy="Refuse formats that you do not write.",
    each=probes.unknown_format,
    on=Usable.RESPONSE,
)
def unknown_format(exchange: Exchange) -> Iterator[Outcome]:
    """A format that does not exist is refused.

    Another one in its place breaks the program that plays it, at a place far from the mistake.
    """
    yield from must_refuse(exchange, "there is no such format")


@check(
    "speech.out_of_range",
    level=Level.SHOULD,
    lenses=[Lens.SPEC, Lens.OPENAI],
    source=f"{rules.API}: 400; {SPEC}, speed: 0.25 to 4",
    remedy="Validate the range of `speed`.",
    each=probes.out_of_range,
    on=Usable.RESPONSE,
)
def out_of_range(exchange: Exchange) -> Iterator[Outcome]:
    """A speed beyond the published range is refused.

    Clamped in silence, it is another speed than the caller set.
    """
    yield from must_refuse(exchange, "the speed is out of range")


@check(
    "speech.unknown_model",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{rules.API}: 404",
    remedy="Answer 404, code model_not_found, to a model that you do not serve.",
    each=probes.unknown_model,
    on=Usable.RESPONSE,
)
def unknown_model(exchange: Exchange) -> Iterator[Outcome]:
    """A model that does not exist is refused.

    A voice of some other model misleads the caller, who is charged for what was not asked.
    """
    yield from must_refuse(exchange, "there is no such model")


@check(
    "speech.no_key",
    level=Level.MUST,
    lenses=BOTH,
    source=f"{rules.API}: 401",
    remedy="Ask for a key on this route as on every other.",
    each=probes.no_key,
    on=Usable.RESPONSE,
)
def no_key(exchange: Exchange) -> Iterator[Finding]:
    """A text without a key gets 401.

    Whatever is served without a key is charged to nobody.
    """
    yield from rules.keyless(exchange)

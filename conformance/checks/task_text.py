"""Checks of texts: spans that point into the input, generated texts, transcripts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from roadworthy.conformance.exchange import Exchange, as_object, objects
from roadworthy.conformance.probes import task as probes
from roadworthy.conformance.reading import media
from roadworthy.conformance.reading.task import lists, results, rule, sent_bytes, sent_inputs, sent_parameters
from roadworthy.conformance.verdict import Finding, Level, NotApplicable, Outcome, Undecided
from roadworthy.conformance.words import is_integer, is_number, show

TASK_API = "task API, response"
TEXTS = ("generated_text", "translation_text", "summary_text")
SPOKEN = ("hello", "world", "test")
"""Words of schemas/media/speech.wav."""
CLOCK_TOLERANCE_S = 2.0
"""Models that pad the sound to their window place the last words a little behind its end."""
LONG_CHARACTERS = 100


def _context(exchange: Exchange) -> str:
    """The text that spans point into."""
    inputs = sent_inputs(exchange)
    found = as_object(inputs).get("context", inputs)
    return found if isinstance(found, str) else ""


def _spans(exchange: Exchange) -> Iterator[tuple[int, int, str]]:
    for item in results(exchange):
        start, end, said = item.get("start"), item.get("end"), item.get("answer", item.get("word"))
        if is_integer(start) and is_integer(end) and isinstance(said, str):
            yield start, end, said


SPANNED = (probes.plain, probes.options, probes.unicode)


@rule(
    "spans.inside",
    source=f"{TASK_API}: start and end",
    remedy="Give start and end as character offsets into the text as it was sent.",
    each=SPANNED,
)
def spans_inside(exchange: Exchange) -> Iterator[Finding]:
    """Every span lies inside the text.

    Callers slice their text by it; most languages raise where the end lies beyond.
    """
    length = len(_context(exchange))
    for start, end, said in _spans(exchange):
        if not 0 <= start <= end <= length:
            yield Finding(f"0 <= start <= end <= {length}", f"{start} to {end} for {show(said)}", at="start")
            return


@rule(
    "spans.match",
    source=f"{TASK_API}: start and end",
    remedy="Count characters (code points), not bytes, tokens or UTF-16 units, from the start of the text as sent.",
    each=SPANNED,
)
def spans_match(exchange: Exchange) -> Iterator[Finding]:
    """A span's text is the word or answer that the result names.

    Marked texts are wrong for everyone who writes beyond ASCII where bytes or tokens were counted.
    """
    context = _context(exchange)
    for start, end, said in _spans(exchange):
        inside = 0 <= start <= end <= len(context)
        if inside and _plain(context[start:end]) != _plain(said):
            yield Finding(f"{show(context[start:end])}, the text from {start} to {end}", show(said), at="word")
            return


def _plain(text: str) -> str:
    """A text as tokenizers leave it comparable: no marks of word pieces, no accents, no space, no case."""
    unmarked = re.sub(r"##|[\u0120\u2581\s]|\[CLS\]|\[SEP\]|</?s>", "", text)
    letters = unicodedata.normalize("NFKD", unmarked)
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).casefold()


@rule(
    "text.filled",
    source=TASK_API,
    remedy="Look at the model's stop settings and at what your template leaves of its answer.",
    each=(probes.plain, probes.options, probes.more),
)
def text_filled(exchange: Exchange) -> Iterator[Outcome]:
    """An answer holds a text, not an empty one.

    An empty answer is charged like a full one.
    """
    if exchange.finish_reason == "length":
        yield NotApplicable("the limit of tokens was spent before the answer, on reasoning")
        return
    for items in lists(exchange):
        for item in items:
            texts = [item[key] for key in TEXTS if isinstance(item.get(key), str)]
            texts += [exchange.text] if exchange.choices else []
            if texts and not any(text.strip() for text in texts):
                yield Finding("a text", show(texts[0]), at="body")
                return


@rule(
    "text.shorter",
    source="task API, summarization",
    remedy="Check that the model summarises: a prompt template may be missing.",
    each=probes.plain,
    level=Level.SHOULD,
)
def text_shorter(exchange: Exchange) -> Iterator[Finding]:
    """A summary is shorter than its text.

    A longer one is no summary, whatever else it is.
    """
    sent = sent_inputs(exchange)
    for item in results(exchange):
        said = item.get("summary_text")
        if isinstance(said, str) and isinstance(sent, str) and len(said) >= len(sent):
            yield Finding(f"fewer than {len(sent)} characters", str(len(said)), at="summary_text")
            return


@rule(
    "mask.sequence",
    source=f"{TASK_API}: sequence",
    remedy="Put the token into the text in place of its mask, and send the whole of it.",
    each=(probes.plain, probes.options, probes.more),
)
def mask_sequence(exchange: Exchange) -> Iterator[Finding]:
    """The sequence is the input with the token in place of its mask.

    Pages show it as the answer.
    """
    sent = sent_inputs(exchange)
    if not isinstance(sent, str):
        return
    for item in results(exchange):
        token, sequence = item.get("token_str"), item.get("sequence")
        if isinstance(token, str) and isinstance(sequence, str):
            expected = token.join(re.split(r"\[MASK\]|<mask>", sent))
            if _plain(expected) != _plain(sequence):
                yield Finding(show(expected), show(sequence), at="sequence")
                return


@rule(
    "mask.targets",
    source="task API, parameters: targets",
    remedy="Score only the tokens that `targets` names.",
    each=probes.more,
)
def mask_targets(exchange: Exchange) -> Iterator[Finding]:
    """Only the targets that were asked for are scored.

    The caller compares these words with each other and with nothing else.
    """
    sent = sent_parameters(exchange).get("targets")
    wanted = {_plain(str(target)) for target in sent} if isinstance(sent, list) else set()
    # A target that is no single token is scored by its first piece.
    said = [item.get("token_str") for item in results(exchange)]
    strange = [
        word for word in said if not (_plain(str(word)) and any(w.startswith(_plain(str(word))) for w in wanted))
    ]
    if strange:
        yield Finding(f"one of {show(sent)}", show(strange[0]), at="token_str")


def _generated(exchange: Exchange) -> str:
    said = results(exchange)[0].get("generated_text") if results(exchange) else None
    return said if isinstance(said, str) else ""


@rule(
    "generation.length",
    source="task API, parameters: max_new_tokens, details",
    remedy="Stop after max_new_tokens, and count the tokens that you send.",
    each=probes.options,
)
def generation_length(exchange: Exchange) -> Iterator[Outcome]:
    """No more tokens are generated than max_new_tokens allows, and the details say how many.

    The limit is how a caller bounds the bill.
    """
    most = sent_parameters(exchange).get("max_new_tokens")
    details = as_object(results(exchange)[0].get("details")) if results(exchange) else {}
    count = details.get("generated_tokens")
    if not is_integer(most) or not is_integer(count):
        said = _generated(exchange)
        if is_integer(most) and most <= 4 and len(said) > LONG_CHARACTERS:
            yield Finding(f"{most} tokens", f"{len(said)} characters: {show(said)}", at="generated_text")
        else:
            yield NotApplicable("the answer has no details to count by")
        return
    if count > most:
        yield Finding(f"at most {most}", str(count), at="details/generated_tokens")
    listed = details.get("tokens")
    if isinstance(listed, list) and listed and len(listed) != count:
        yield Finding(f"{count} tokens, as details/generated_tokens says", str(len(listed)), at="details/tokens")


@rule(
    "generation.prompt",
    source="task API, parameters: return_full_text",
    remedy="Put the prompt before the text where return_full_text is true, and leave it out where it is false.",
    each=(probes.options, probes.more),
)
def generation_prompt(exchange: Exchange) -> Iterator[Outcome]:
    """The prompt is part of the answer where return_full_text says so, and only there.

    Callers glue prompt and answer together, or cut as many characters off.
    """
    wanted, prompt = sent_parameters(exchange).get("return_full_text"), sent_inputs(exchange)
    if not isinstance(wanted, bool) or not isinstance(prompt, str):
        yield NotApplicable("this example does not set return_full_text")
    elif _generated(exchange).startswith(prompt) is not wanted:
        what = "the prompt before the text" if wanted else "the text without the prompt"
        yield Finding(what, show(_generated(exchange)), at="generated_text")


@rule(
    "generation.stop",
    source="task API, parameters: stop",
    remedy="End the text at the first stop sequence.",
    each=probes.more,
)
def generation_stop(exchange: Exchange) -> Iterator[Finding]:
    """Nothing follows a stop sequence.

    Agents use stop sequences to cut a model's imagined next turn off.
    """
    stops, prompt = sent_parameters(exchange).get("stop"), sent_inputs(exchange)
    said = _generated(exchange).removeprefix(prompt if isinstance(prompt, str) else "")
    for stop in stops if isinstance(stops, list) else []:
        _, found, rest = said.partition(str(stop))
        if found and rest:
            yield Finding(f"nothing after {show(stop)}", show(rest), at="generated_text")
            return


@rule(
    "transcript.words",
    source="task API, automatic speech recognition: text",
    remedy="Check how you resample the sound; the example is 16 kHz, mono, 16 bit.",
    each=probes.again,
    level=Level.SHOULD,
    bar=0.5,
)
def transcript_words(exchange: Exchange) -> Iterator[Finding]:
    """The transcript of a short, clear sentence holds some of its words.

    Wrong sampling rates give fluent nonsense that no shape check sees.
    """
    said = as_object(exchange.json).get("text")
    if isinstance(said, str) and not any(word in said.lower() for word in SPOKEN):
        yield Finding(f"some of {', '.join(SPOKEN)}", show(said), at="/text")


@rule(
    "transcript.chunks",
    source="task API, automatic speech recognition: return_timestamps, chunks",
    remedy="Give chunks in order, each with start and end in seconds from the beginning of the sound.",
    each=probes.options,
)
def transcript_chunks(exchange: Exchange) -> Iterator[Outcome]:
    """With return_timestamps the chunks come in order, inside the sound, and hold its text.

    Subtitles are made of them.
    """
    answer = as_object(exchange.json)
    chunks = objects(answer.get("chunks"))
    if not chunks:
        yield Finding("chunks with timestamps", show(answer.get("chunks")), at="/chunks")
        return
    sound = sent_bytes(exchange)
    try:
        duration_s = media.audio(sound).duration_s if sound else 0.0
    except media.MediaError as error:
        yield Undecided(f"our own example cannot be measured: {error}")
        return
    yield from _times(chunks, duration_s)
    joined = _plain("".join(str(chunk.get("text", "")) for chunk in chunks))
    if joined != _plain(str(answer.get("text", ""))):
        yield Finding(f"the text of the answer, {show(answer.get('text'))}", show(joined), at="/chunks")


def _times(chunks: list[dict[str, Any]], duration_s: float) -> Iterator[Finding]:
    before = 0.0
    for index, chunk in enumerate(chunks):
        times = chunk.get("timestamp")
        if not isinstance(times, list) or len(times) != 2 or not is_number(times[0]):
            continue
        start, end = times[0], times[1] if is_number(times[1]) else times[0]
        at = f"/chunks/{index}/timestamp"
        if start > end or start < before - CLOCK_TOLERANCE_S:
            yield Finding("times that go forward", show(times), at=at)
            return
        if start < 0 or end > duration_s + CLOCK_TOLERANCE_S:
            yield Finding(f"times within the sound's {duration_s:.2f} s", show(times), at=at)
            return
        before = end

"""The sandbox's models for every task but chat: small, deterministic, and computed from what was sent."""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from roadworthy.sandbox import answers, media
from roadworthy.sandbox.turn import ApiError
from roadworthy.schemas import manifest

SENTIMENTS = ("positive", "neutral", "negative", "mixed")
SCENES = ("street", "garden", "harbour", "kitchen")
SOUNDS = ("speech", "music", "rain", "silence")
MOTIONS = ("rolling", "falling", "standing", "turning")
DIMENSIONS = 64
VOICE = "Hello world, this is a test."
FALLBACK_SIZE = (160, 120)
DEFAULT_SIZE = 64
DEFAULT_FRAMES = 8
MOST_PIXELS = 1 << 20
RAW = "raw"
"""The key under which a body of bytes stands beside what JSON bodies have."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a task is asked. With `lenient` anything is taken for valid, as a careless server would."""

    body: dict[str, Any]
    lenient: bool = False

    @property
    def inputs(self) -> Any:
        """What the task is about."""
        return self.body.get("inputs")

    @property
    def parameters(self) -> dict[str, Any]:
        """How it is to be done."""
        found = self.body.get("parameters")
        return found if isinstance(found, dict) else {}

    def text(self, value: Any, name: str = "inputs") -> str:
        """A text that must be there."""
        if isinstance(value, str) and value.strip():
            return value
        if self.lenient:
            return "something"
        got = "an empty text" if isinstance(value, str) else type(value).__name__
        raise ApiError(400, f"`{name}` must be a text, got {got}", param=name)

    def texts(self) -> list[str]:
        """One text or several."""
        if isinstance(self.inputs, list):
            return [self.text(item) for item in self.inputs]
        return [self.text(self.inputs)]

    def part(self, name: str) -> Any:
        """A named part of the inputs, which stands beside them in an older form."""
        if isinstance(self.inputs, dict):
            return self.inputs.get(name)
        return self.body.get(name)

    def medium(self, value: Any) -> bytes:
        """The bytes of a medium: raw, or base64 in JSON."""
        if RAW in self.body:
            return bytes(self.body[RAW])
        if isinstance(value, str) and value:
            try:
                return base64.b64decode(value.partition(",")[2] if value.startswith("data:") else value, validate=True)
            except (binascii.Error, ValueError):
                pass
        if self.lenient:
            return b""
        raise ApiError(400, "`inputs` must be a medium: its bytes as the body, or base64 in JSON", param="inputs")

    def picture(self, value: Any) -> tuple[int, int]:
        """The size of a picture."""
        import PIL.Image

        data = self.medium(value)
        try:
            with PIL.Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP", "GIF"]) as opened:
                opened.load()
                return opened.size
        except (OSError, ValueError, SyntaxError):
            if self.lenient:
                return FALLBACK_SIZE
            raise ApiError(400, "the picture cannot be decoded", param="inputs") from None

    def sound_s(self, value: Any) -> float:
        """The length of a sound."""
        try:
            return media.duration_s(self.medium(value))
        except ValueError as error:
            if self.lenient:
                return 1.0
            raise ApiError(400, f"the sound cannot be decoded: {error}", param="inputs") from None

    def film(self, value: Any) -> None:
        """Check that a film decodes."""
        import av

        data = self.medium(value)
        try:
            with av.open(io.BytesIO(data), mode="r", format="mp4") as container:
                next(container.decode(video=0))
        except (av.error.FFmpegError, StopIteration, IndexError):
            if not self.lenient:
                raise ApiError(400, "the film cannot be decoded", param="inputs") from None

    def labels(self) -> list[str]:
        """The candidate labels."""
        found = self.parameters.get("candidate_labels")
        if isinstance(found, list) and found and all(isinstance(label, str) for label in found):
            return found
        if self.lenient:
            return ["one", "other"]
        raise ApiError(400, "`parameters.candidate_labels` must be an array of texts", param="candidate_labels")

    def top(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The best results, as many as top_k asks for."""
        most = self.parameters.get("top_k")
        best = sorted(items, key=lambda item: -item["score"])
        return best[:most] if isinstance(most, int) and most > 0 else best


def chances(text: str, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Labels with scores that add up to 1, the best first; the text decides."""
    weights = [1 + media.number(f"{text}|{label}") % 97 for label in labels]
    total = sum(weights)
    made = [{"label": label, "score": weight / total} for label, weight in zip(labels, weights, strict=True)]
    return sorted(made, key=lambda item: -float(item["score"]))


def vector(text: str) -> list[float]:
    """A text's letters by three, counted in as many buckets as the model has dimensions, and normalised."""
    counts = [0.0] * DIMENSIONS
    letters = f"  {text.casefold()}  "
    for start in range(len(letters) - 2):
        counts[media.number(letters[start : start + 3]) % DIMENSIONS] += 1
    length = math.sqrt(sum(count * count for count in counts)) or 1.0
    return [count / length for count in counts]


def similarity(one: str, two: str) -> float:
    """The cosine of two texts' vectors."""
    return min(1.0, sum(a * b for a, b in zip(vector(one), vector(two), strict=True)))


# Texts


def text_classification(asked: Asked) -> Any:
    """Sentiments, for each text of the batch."""
    return [asked.top(chances(text, SENTIMENTS)) for text in asked.texts()]


def zero_shot_classification(asked: Asked) -> Any:
    """The candidate labels: against each other, or each by itself."""
    labels, text = asked.labels(), asked.text(asked.inputs)
    if asked.parameters.get("multi_label"):
        made = [{"label": label, "score": 0.05 + media.number(text + label) % 90 / 100} for label in labels]
        return sorted(made, key=lambda item: -float(item["score"]))
    return chances(text, labels)


def token_classification(asked: Asked) -> Any:
    """Runs of capitalised words, as names."""
    text = asked.text(asked.inputs)
    return [
        {
            "entity_group": "NAME",
            "score": 0.9 + media.number(found.group()) % 90 / 1000,
            "word": found.group(),
            "start": found.start(),
            "end": found.end(),
        }
        for found in re.finditer(r"[^\W\d_a-zß-ÿ]\w+(?: [^\W\d_a-zß-ÿ]\w+)*", text)
    ]


def translation(asked: Asked) -> Any:
    """Each word written backwards: a language of its own."""
    return [
        {"translation_text": re.sub(r"\w+", lambda found: found.group()[::-1], text).capitalize()}
        for text in asked.texts()
    ]


def summarization(asked: Asked) -> Any:
    """The first sentence."""
    return [{"summary_text": re.split(r"(?<=[.!?])\s", text)[0]} for text in asked.texts()]


def feature_extraction(asked: Asked) -> Any:
    """One vector for each text."""
    return [vector(text) for text in asked.texts()]


def sentence_similarity(asked: Asked) -> Any:
    """How near each sentence is to the source."""
    source = asked.text(asked.part("source_sentence"), "source_sentence")
    found = asked.part("sentences")
    if not isinstance(found, list) or not found:
        if not asked.lenient:
            raise ApiError(400, "`sentences` must be a list of texts", param="sentences")
        found = ["something"]
    return [similarity(source, asked.text(sentence, "sentences")) for sentence in found]


def fill_mask(asked: Asked) -> Any:
    """A few words in place of the mask, or the targets."""
    text = asked.text(asked.inputs)
    if "[MASK]" not in text:
        if not asked.lenient:
            raise ApiError(400, "`inputs` must hold [MASK]", param="inputs")
        text = "[MASK]"
    targets = asked.parameters.get("targets")
    words = targets if isinstance(targets, list) and targets else ["paris", "lyon", "there", "called"]
    return asked.top(
        [
            {
                "sequence": text.replace("[MASK]", item["label"], 1),
                "score": item["score"],
                "token": media.number(item["label"]) % 30_000,
                "token_str": item["label"],
            }
            for item in chances(text, words)
        ]
    )


def question_answering(asked: Asked) -> Any:
    """The number in the context, or else its first word, then others."""
    context = asked.text(asked.part("context"), "context")
    asked.text(asked.part("question"), "question")
    found = list(re.finditer(r"\d+", context)) + list(re.finditer(r"\w+", context))
    most = asked.parameters.get("top_k")
    count = most if isinstance(most, int) and most > 0 else 1
    return [
        {"answer": span.group(), "score": 0.9 / place, "start": span.start(), "end": span.end()}
        for place, span in enumerate(found[:count], 1)
    ]


def table_question_answering(asked: Asked) -> Any:
    """The first cell of the row and column that the question names."""
    query = asked.part("question") or asked.part("query")
    question, table = asked.text(query, "question"), asked.part("table")
    columns = {str(name): cells for name, cells in table.items()} if isinstance(table, dict) else {}
    if not columns or not all(isinstance(cells, list) and cells for cells in columns.values()):
        if not asked.lenient:
            raise ApiError(400, "`table` must be an object of columns", param="table")
        columns = {"a": ["1"]}
    names = list(columns)
    column = next((place for place, name in enumerate(names) if name.casefold() in question.casefold()), 0)
    first = columns[names[0]]
    row = next((place for place, cell in enumerate(first) if str(cell).casefold() in question.casefold()), 0)
    cell = str(columns[names[column]][row])
    return {"answer": cell, "coordinates": [[row, column]], "cells": [cell], "aggregator": "NONE"}


def text_generation(asked: Asked) -> Any:
    """What the chat model says to the prompt."""
    prompt, parameters = asked.text(asked.inputs), asked.parameters
    limit = parameters.get("max_new_tokens") or 20
    said, finish = generate(prompt, int(limit), parameters.get("stop") or [])
    made: dict[str, Any] = {"generated_text": (prompt if parameters.get("return_full_text") else "") + said}
    if parameters.get("details"):
        tokens = answers.tokens(said)
        made["details"] = {
            "finish_reason": finish,
            "generated_tokens": len(tokens),
            "seed": None,
            "prefill": [],
            "tokens": [
                {"id": media.number(token) % 30_000, "text": token, "logprob": -0.05, "special": False}
                for token in tokens
            ],
        }
    return made


def generate(prompt: str, limit: int, stops: Sequence[str]) -> tuple[str, str]:
    """A continuation and why it ends: `length`, `stop_sequence` or `eos_token`."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 1 << 20}
    said = answers.answer(body)[0].content or ""
    finish = "eos_token"
    ends = [said.index(stop) + len(stop) for stop in stops if stop in said]
    if ends:
        said, finish = said[: min(ends)], "stop_sequence"
    tokens = answers.tokens(said)
    return ("".join(tokens[:limit]), "length") if len(tokens) > limit else (said, finish)


def text_ranking(asked: Asked) -> Any:
    """The texts by their similarity to the query."""
    query, texts = asked.text(asked.body.get("query"), "query"), asked.body.get("texts")
    if not isinstance(texts, list) or not texts:
        if not asked.lenient:
            raise ApiError(400, "`texts` must be an array of texts", param="texts")
        texts = ["something"]
    made: list[dict[str, Any]] = [
        {"index": place, "score": similarity(query, asked.text(text, "texts"))} for place, text in enumerate(texts)
    ]
    if asked.body.get("return_text"):
        made = [{**item, "text": texts[item["index"]]} for item in made]
    return sorted(made, key=lambda item: -float(item["score"]))


def _rows(asked: Asked) -> list[list[Any]]:
    """The rows of a table of columns."""
    data = asked.inputs.get("data") if isinstance(asked.inputs, dict) else None
    if isinstance(data, dict) and data and all(isinstance(column, list) for column in data.values()):
        return [list(row) for row in zip(*data.values(), strict=False)]
    if asked.lenient:
        return [[0]]
    raise ApiError(400, "`inputs.data` must be an object of columns", param="inputs")


def tabular_classification(asked: Asked) -> Any:
    """A class for each row."""
    return [media.number(str(row)) % 3 for row in _rows(asked)]


def tabular_regression(asked: Asked) -> Any:
    """A number for each row."""
    return [media.number(str(row)) % 1000 / 10 for row in _rows(asked)]


# Pictures, sounds and films that come in


def document_question_answering(asked: Asked) -> Any:
    """A number that the picture's size decides."""
    width, height = asked.picture(asked.part("image"))
    asked.text(asked.part("question"), "question")
    return asked.top([{"answer": str(width * height), "score": 0.87, "start": 1, "end": 1}])


def visual_question_answering(asked: Asked) -> Any:
    """A few colours."""
    size = asked.picture(asked.part("image"))
    question = asked.text(asked.part("question"), "question")
    return asked.top(
        [{"answer": c["label"], "score": c["score"]} for c in chances(f"{question}{size}", ("red", "blue", "green"))]
    )


def image_classification(asked: Asked) -> Any:
    """Kinds of scenes."""
    return asked.top(chances(str(asked.picture(asked.inputs)), SCENES))


def video_classification(asked: Asked) -> Any:
    """Kinds of motion."""
    asked.film(asked.inputs)
    return asked.top(chances(str(len(str(asked.inputs))), MOTIONS))


def audio_classification(asked: Asked) -> Any:
    """Kinds of sounds."""
    return asked.top(chances(f"{asked.sound_s(asked.inputs):.2f}", SOUNDS))


def _image_input(asked: Asked) -> Any:
    return asked.inputs.get("image") if isinstance(asked.inputs, dict) else asked.inputs


def zero_shot_image_classification(asked: Asked) -> Any:
    """The candidate labels."""
    return chances(str(asked.picture(_image_input(asked))), asked.labels())


def _boxed(asked: Asked, labels: Sequence[str]) -> Any:
    width, height = asked.picture(_image_input(asked))
    least = asked.parameters.get("threshold") or 0
    made = []
    for place, item in enumerate(chances(f"{width}{height}", labels)):
        score = 0.95 - 0.3 * place
        box = {"xmin": 4 + place, "ymin": 2, "xmax": width // 2 + place, "ymax": height // 2}
        if score >= least:
            made.append({"label": item["label"], "score": score, "box": box})
    return made


def object_detection(asked: Asked) -> Any:
    """A box or two."""
    return _boxed(asked, ("ball", "house"))


def zero_shot_object_detection(asked: Asked) -> Any:
    """A box for some of the candidate labels."""
    return _boxed(asked, asked.labels())


def image_segmentation(asked: Asked) -> Any:
    """The upper half and the lower half."""
    width, height = asked.picture(asked.inputs)
    return [
        {"label": label, "score": 0.9, "mask": base64.b64encode(media.png(width, height, seed)).decode()}
        for seed, label in ((1, "sky"), (2, "grass"))
    ]


def depth_estimation(asked: Asked) -> Any:
    """Nearer towards the bottom."""
    width, height = asked.picture(asked.inputs)
    rows = [[round(1 - y / height, 3)] * 4 for y in range(0, height, max(1, height // 4))]
    return {"predicted_depth": rows, "depth": base64.b64encode(media.png(width, height, 3)).decode()}


def image_to_text(asked: Asked) -> Any:
    """A caption."""
    width, height = asked.picture(asked.inputs)
    said = answers.tokens(f"A picture of {width} by {height} points with a ball and a house.")
    limit = asked.parameters.get("max_new_tokens")
    return {"generated_text": "".join(said[:limit] if isinstance(limit, int) else said)}


def automatic_speech_recognition(asked: Asked) -> Any:
    """The one sentence that this model knows, and when its words are said."""
    duration_s = asked.sound_s(asked.inputs)
    made: dict[str, Any] = {"text": VOICE}
    if asked.parameters.get("return_timestamps"):
        words = [" " + word for word in VOICE.split()]
        step = duration_s / len(words)
        made["chunks"] = [
            {"text": word, "timestamp": [round(place * step, 2), round((place + 1) * step, 2)]}
            for place, word in enumerate(words)
        ]
    return made


def audio_to_audio(asked: Asked) -> Any:
    """The sound as it came, in two voices."""
    asked.sound_s(asked.inputs)
    return [
        {
            "label": label,
            "blob": base64.b64encode(media.wav(label * 4)).decode(),
            "content-type": "audio/wav",
        }
        for label in ("voice", "noise")
    ]


# Media that go out


def _size(asked: Asked) -> tuple[int, int]:
    asked_for = asked.parameters.get("target_size") or asked.parameters
    width, height = (asked_for.get(side, DEFAULT_SIZE) for side in ("width", "height"))
    if not all(isinstance(side, int) and side > 0 for side in (width, height)) or width * height > MOST_PIXELS:
        raise ApiError(400, f"`width` and `height` must be positive and make up to {MOST_PIXELS:,} pixels")
    return width, height


def _frames(asked: Asked) -> int:
    count = asked.parameters.get("num_frames", DEFAULT_FRAMES)
    if not isinstance(count, int) or not 0 < count <= 64:
        raise ApiError(400, "`num_frames` must be a number from 1 to 64", param="num_frames")
    return count


def text_to_image(asked: Asked) -> bytes:
    """A gradient in the prompt's colours."""
    text = asked.text(asked.inputs)
    return media.png(*_size(asked), seed=media.number(text))


def image_to_image(asked: Asked) -> bytes:
    """A gradient in the picture's place."""
    width, height = asked.picture(asked.inputs)
    return media.png(*_size(asked), seed=width * height)


def text_to_video(asked: Asked) -> bytes:
    """A film of changing colours."""
    return media.mp4(media.number(asked.text(asked.inputs)), frames=_frames(asked))


def image_to_video(asked: Asked) -> bytes:
    """A film of changing colours, of the size asked for."""
    width, height = asked.picture(asked.inputs)
    return media.mp4(width * height, *_size(asked), frames=_frames(asked))


def text_to_speech(asked: Asked) -> bytes:
    """A tone for each character."""
    return media.wav(asked.text(asked.inputs))


MODELS: dict[str, Callable[[Asked], Any]] = {
    "audio-classification": audio_classification,
    "audio-to-audio": audio_to_audio,
    "automatic-speech-recognition": automatic_speech_recognition,
    "depth-estimation": depth_estimation,
    "document-question-answering": document_question_answering,
    "feature-extraction": feature_extraction,
    "fill-mask": fill_mask,
    "image-classification": image_classification,
    "image-segmentation": image_segmentation,
    "image-text-to-image": image_to_image,
    "image-text-to-video": image_to_video,
    "image-to-image": image_to_image,
    "image-to-text": image_to_text,
    "image-to-video": image_to_video,
    "object-detection": object_detection,
    "question-answering": question_answering,
    "sentence-similarity": sentence_similarity,
    "summarization": summarization,
    "table-question-answering": table_question_answering,
    "tabular-classification": tabular_classification,
    "tabular-regression": tabular_regression,
    "text-classification": text_classification,
    "text-generation": text_generation,
    "text-ranking": text_ranking,
    "text-to-audio": text_to_speech,
    "text-to-image": text_to_image,
    "text-to-speech": text_to_speech,
    "text-to-video": text_to_video,
    "token-classification": token_classification,
    "translation": translation,
    "video-classification": video_classification,
    "visual-question-answering": visual_question_answering,
    "zero-shot-classification": zero_shot_classification,
    "zero-shot-image-classification": zero_shot_image_classification,
    "zero-shot-object-detection": zero_shot_object_detection,
}
CONTENT_TYPES = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4"}


def content_type(task: str) -> str:
    """The media type of a task's answers."""
    form = manifest.manifest(task)
    return CONTENT_TYPES.get(form.response if form else "", "application/json")

"""Faults of the tasks: each breaks one rule, on the tasks that have it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from roadworthy.sandbox import media, tasks
from roadworthy.sandbox.models import task_model
from roadworthy.sandbox.mutation import fault, variation
from roadworthy.sandbox.turn import Kind, Stage, Turn
from roadworthy.schemas import manifest

TASK = {Kind.TASK}
EVERY = tuple(task for task in manifest.names() if task != "chat-completion")


def _subjects(*tasks: str) -> tuple[str, ...]:
    return tuple(f"{task_model(task)}={task}@serverless" for task in tasks)


def _having(rule: str) -> tuple[str, ...]:
    """The subjects whose manifests list this rule."""
    return _subjects(*(task for task in EVERY if (form := manifest.manifest(task)) and rule in form.rules))


def _answering(*responses: str, but: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The subjects that answer in one of these forms."""
    found = (task for task in EVERY if (form := manifest.manifest(task)) and form.response in responses)
    return _subjects(*(task for task in found if task not in but))


def _items(payload: Any) -> Iterator[dict[str, Any]]:
    """Every result of an answer."""
    if isinstance(payload, dict):
        yield payload
    elif isinstance(payload, list):
        for item in payload:
            yield from _items(item)


def _parameters(turn: Turn) -> dict[str, Any]:
    found = turn.body.get("parameters")
    return found if isinstance(found, dict) else {}


def _texts(payload: Any) -> Any:
    """The answer with each of its results written as a text."""
    return [str(item) for item in payload] if isinstance(payload, list) else str(payload)


JSON_TASKS = _answering("json")
MEDIA_TASKS = _answering("image", "audio", "video")


# Every task


@fault(
    "task.results_are_texts",
    caught_by={"task.shape", "task.spec"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_answering("json", but=("tabular-classification",)),
)
def results_are_texts(turn: Turn) -> None:
    """The results are written as texts into the answer."""
    turn.payload = _texts(turn.payload)


def _answer_in_published_shape(turn: Turn) -> None:
    """Answers have the published shape, which the official clients do not read."""
    value = turn.payload
    turn.payload = value[0] if isinstance(value, list) and value else [value]


fault(
    "task.published_shape",
    caught_by={"task.shape"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_subjects("summarization", "translation", "table-question-answering"),
)(_answer_in_published_shape)


@fault(
    "task.flat_labels",
    caught_by={"task.shape"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_subjects("text-classification"),
)
def flat_labels(turn: Turn) -> None:
    """The labels of each text stand in one flat list, as published."""
    turn.payload = [item for items in turn.payload for item in items]


@fault(
    "task.label_named_otherwise",
    caught_by={"task.shape", "task.spec"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=tuple(subject for subject in _having("scores.sorted") if "visual-question" not in subject),
)
def label_named_otherwise(turn: Turn) -> None:
    """The main key of every result has another name."""
    for item in _items(turn.payload):
        for key in ("label", "token_str", "answer"):
            if key in item:
                item["name"] = item.pop(key)


@fault(
    "task.score_is_a_text",
    caught_by={"task.shape", "task.spec"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("scores.range"),
)
def score_is_a_text(turn: Turn) -> None:
    """Scores are sent as texts."""
    for item in _items(turn.payload):
        if "score" in item:
            item["score"] = f"{item['score']:.3f}"


@fault(
    "task.wrapped_in_data",
    caught_by={"task.shape", "task.spec"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_answering("json", but=("depth-estimation", "image-text-to-text")),
)
def wrapped_in_data(turn: Turn) -> None:
    """The answer is wrapped in an object of the provider's own."""
    turn.payload = {"data": turn.payload, "status": "ok"}


@fault(
    "task.labelled_as_text",
    caught_by={"task.json"},
    at=Stage.HEAD,
    on=TASK,
    subjects=JSON_TASKS,
)
def labelled_as_text(turn: Turn) -> None:
    """JSON is sent as text/plain."""
    turn.headers["content-type"] = "text/plain"


@fault(
    "task.not_a_number",
    caught_by={"task.json"},
    at=Stage.FRAMES,
    on=TASK,
    subjects=_subjects("text-classification", "sentence-similarity", "tabular-regression"),
)
def not_a_number(turn: Turn) -> None:
    """A number is sent as NaN, which is not JSON."""
    data = turn.frames[0].data
    digit = next(place for place, byte in enumerate(data) if chr(byte).isdigit() and data[place - 1] in b":[,")
    end = next(place for place in range(digit, len(data)) if data[place] in b",]}")
    turn.frames[0].data = data[:digit] + b"NaN" + data[end:]


@fault(
    "task.parameters_refused",
    caught_by={"task.options_answered"},
    at=Stage.HEAD,
    on=TASK,
    subjects=_subjects("text-classification", "fill-mask", "object-detection", "text-to-image"),
)
def parameters_refused(turn: Turn) -> None:
    """Documented parameters are refused."""
    if _parameters(turn).keys() & {"top_k", "threshold", "seed"}:
        turn.status = 400
        turn.headers["content-type"] = "application/json"
        turn.frames[0].data = b'{"error":"unknown parameter"}'


@fault(
    "task.slow",
    caught_by={"task.latency"},
    at=Stage.FRAMES,
    on=TASK,
    subjects=_subjects("text-classification", "text-to-image"),
)
def slow(turn: Turn) -> None:
    """Every answer takes longer than is allowed."""
    turn.frames[0].delay_s = 0.5


@fault(
    "task.wrong_input_answered",
    caught_by={"task.refuses.wrong_input"},
    at=Stage.ARRIVAL,
    subjects=_answering("json", "image", "audio", "video", but=("image-text-to-text",)),
)
def wrong_input_answered(turn: Turn) -> None:
    """An input of the wrong kind is answered all the same."""
    if b"inputs" in turn.raw or b"texts" in turn.raw or not turn.raw.startswith(b"{"):
        turn.skip.add("inputs")


@fault(
    "task.no_input_answered",
    caught_by={"task.refuses.no_input"},
    at=Stage.ARRIVAL,
    subjects=_answering("json", "image", "audio", "video", but=("image-text-to-text",)),
)
def no_input_answered(turn: Turn) -> None:
    """A request without an input is answered all the same."""
    if turn.raw == b'{"parameters": {}}':
        turn.skip.add("inputs")


def _empty(turn: Turn) -> bool:
    inputs = turn.body.get("inputs")
    nothing = isinstance(inputs, dict) and not any(inputs.values())
    return "inputs" in turn.body and (inputs in ("", [], {}) or nothing)


@fault(
    "task.empty_crashes",
    caught_by={"errors.no_5xx"},
    at=Stage.ARRIVAL,
    subjects=_subjects("text-classification", "image-classification", "question-answering"),
)
def empty_crashes(turn: Turn) -> None:
    """An empty input makes the server fail."""
    turn.crash = turn.raw.startswith((b'{"inputs": ""', b'{"inputs": {"question": "", "context": ""}'))


@fault(
    "task.empty_misshapen",
    caught_by={"task.empty"},
    at=Stage.PAYLOAD,
    on={Kind.ERROR},
    subjects=_subjects("text-classification", "summarization", "image-classification"),
)
def empty_misshapen(turn: Turn) -> None:
    """An empty input is answered in a shape of its own."""
    if _empty(turn):
        turn.status, turn.payload = 200, {"result": None}


@fault(
    "task.media_as_text",
    caught_by={"task.media_type"},
    at=Stage.HEAD,
    on=TASK,
    subjects=MEDIA_TASKS,
)
def media_as_text(turn: Turn) -> None:
    """A medium is sent as text."""
    turn.headers["content-type"] = "text/plain"


@fault(
    "task.once_only",
    caught_by={"task.answered"},
    at=Stage.HEAD,
    on=TASK,
    subjects=_subjects("text-to-image", "text-classification"),
)
def once_only(turn: Turn) -> None:
    """Only the first request is answered."""
    if turn.memory.setdefault("answered", 0) and not _parameters(turn) and not isinstance(turn.body["inputs"], list):
        turn.status = 400
        turn.headers["content-type"] = "application/json"
        turn.frames[0].data = b'{"error":"one request a day"}'
    turn.memory["answered"] = 1


@fault(
    "task.published_otherwise",
    caught_by={"task.spec"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_subjects("text-generation", "feature-extraction", "question-answering"),
)
def published_otherwise(turn: Turn) -> None:
    """A single answer has a form that both clients read and the specification does not have."""
    value = turn.payload
    if isinstance(value, dict):
        turn.payload = [value]
    elif len(value) == 1:
        turn.payload = value[0]


@fault(
    "task.classes_in_words",
    caught_by={"task.shape"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_subjects("tabular-classification"),
)
def classes_in_words(turn: Turn) -> None:
    """Classes of rows are told in words, which the JavaScript client refuses."""
    turn.payload = [f"class {value}" for value in turn.payload]


# Scores and labels


@fault(
    "task.scores.percent",
    caught_by={"task.scores.range"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=tuple(s for s in _having("scores.range") if "zero-shot" not in s or "object" in s),
)
def percent(turn: Turn) -> None:
    """Scores are sent in percent."""
    for item in _items(turn.payload):
        if "score" in item:
            item["score"] = 100 * item["score"]


@fault(
    "task.scores.logits",
    caught_by={"task.scores.range", "task.labels.sum"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("labels.sum"),
)
def logits(turn: Turn) -> None:
    """Scores are sent as logits."""
    for item in _items(turn.payload):
        if "score" in item:
            item["score"] = 5 * item["score"] - 2


@fault(
    "task.scores.unsorted",
    caught_by={"task.scores.sorted"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("scores.sorted"),
)
def unsorted(turn: Turn) -> None:
    """The results come in the order of the model's labels."""
    value = turn.payload
    turn.payload = [items[::-1] for items in value] if isinstance(value[0], list) else value[::-1]


@fault(
    "task.top_k_ignored",
    caught_by={"task.top_k"},
    at=Stage.REQUEST,
    on=TASK,
    subjects=tuple(s for s in _having("top_k") if "document" not in s and "/question" not in s),
)
def top_k_ignored(turn: Turn) -> None:
    """`top_k` is ignored."""
    _parameters(turn).pop("top_k", None)


@fault(
    "task.top_k_one_more",
    caught_by={"task.top_k"},
    at=Stage.REQUEST,
    on=TASK,
    subjects=_subjects("text-classification", "question-answering", "fill-mask"),
)
def top_k_one_more(turn: Turn) -> None:
    """One more result comes than `top_k` asks for."""
    if "top_k" in _parameters(turn):
        _parameters(turn)["top_k"] += 1


@fault(
    "task.top_k_nothing",
    caught_by={"task.top_k"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_subjects("document-question-answering", "audio-classification"),
)
def top_k_nothing(turn: Turn) -> None:
    """With `top_k` no result comes at all."""
    if "top_k" in _parameters(turn):
        turn.payload = []


@fault(
    "task.batch_first_only",
    caught_by={"task.batch"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_subjects("text-classification", "feature-extraction"),
)
def batch_first_only(turn: Turn) -> None:
    """Of a batch only the first input is answered."""
    turn.payload = turn.payload[:1]


@fault(
    "task.threshold_ignored",
    caught_by={"task.threshold"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("threshold"),
)
def threshold_ignored(turn: Turn) -> None:
    """Results below the threshold are sent too."""
    if turn.payload:
        turn.payload.append({**turn.payload[0], "score": 0.2})


@fault(
    "task.labels.renamed",
    caught_by={"task.labels.all"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("labels.all"),
)
def labels_renamed(turn: Turn) -> None:
    """Labels come back in capitals."""
    for item in _items(turn.payload):
        item["label"] = item["label"].upper()


@fault(
    "task.labels.best_only",
    caught_by={"task.labels.all", "task.labels.sum"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("labels.sum"),
)
def labels_best_only(turn: Turn) -> None:
    """Only the best label comes back."""
    turn.payload = turn.payload[:1]


@fault(
    "task.labels.strange", caught_by={"task.labels.known"}, at=Stage.PAYLOAD, on=TASK, subjects=_having("labels.known")
)
def labels_strange(turn: Turn) -> None:
    """Something is found that nobody asked for."""
    turn.payload[0]["label"] = "person"


@fault(
    "task.labels.unnormalised", caught_by={"task.labels.sum"}, at=Stage.PAYLOAD, on=TASK, subjects=_having("labels.sum")
)
def labels_unnormalised(turn: Turn) -> None:
    """The scores of labels that exclude each other do not add up."""
    for item in turn.payload:
        item["score"] /= 2


@fault(
    "task.labels.multi_ignored",
    caught_by={"task.labels.multi"},
    at=Stage.REQUEST,
    on=TASK,
    subjects=_having("labels.multi"),
)
def multi_ignored(turn: Turn) -> None:
    """`multi_label` is ignored."""
    _parameters(turn).pop("multi_label", None)


@fault(
    "task.ranking.place_twice",
    caught_by={"task.ranking"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("ranking"),
)
def place_twice(turn: Turn) -> None:
    """One text is named twice and another never."""
    turn.payload[-1]["index"] = turn.payload[0]["index"]


@fault(
    "task.ranking.upside_down",
    caught_by={"task.ranking"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("ranking"),
)
def upside_down(turn: Turn) -> None:
    """The worst text comes first."""
    turn.payload.reverse()


@fault(
    "task.ranking.wrong_text",
    caught_by={"task.ranking"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("ranking"),
)
def wrong_text(turn: Turn) -> None:
    """The texts that come back do not belong to their places."""
    for item in turn.payload:
        if "text" in item:
            item["text"] = "another text"


@fault(
    "task.table.one_row",
    caught_by={"task.table.rows"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("table.rows"),
)
def one_row(turn: Turn) -> None:
    """Only the first row of a table gets a prediction."""
    turn.payload = turn.payload[:1]


@fault(
    "task.table.places_from_one",
    caught_by={"task.table.cells"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("table.cells"),
)
def places_from_one(turn: Turn) -> None:
    """Rows and columns are counted from 1."""
    turn.payload["coordinates"] = [[row + 1, column + 1] for row, column in turn.payload["coordinates"]]


@fault(
    "task.table.more_cells", caught_by={"task.table.cells"}, at=Stage.PAYLOAD, on=TASK, subjects=_having("table.cells")
)
def more_cells(turn: Turn) -> None:
    """There are more cells than coordinates."""
    turn.payload["cells"].append("one more")


# Spans and texts


@fault(
    "task.spans.beyond", caught_by={"task.spans.inside"}, at=Stage.PAYLOAD, on=TASK, subjects=_having("spans.inside")
)
def spans_beyond(turn: Turn) -> None:
    """Spans lie beyond the end of the text."""
    for item in _items(turn.payload):
        item["start"] += 10_000
        item["end"] += 10_000


@fault(
    "task.spans.off_by_one", caught_by={"task.spans.match"}, at=Stage.PAYLOAD, on=TASK, subjects=_having("spans.match")
)
def spans_off_by_one(turn: Turn) -> None:
    """Spans end one character too early."""
    for item in _items(turn.payload):
        item["end"] -= 1


@fault(
    "task.spans.in_bytes", caught_by={"task.spans.match"}, at=Stage.PAYLOAD, on=TASK, subjects=_having("spans.match")
)
def spans_in_bytes(turn: Turn) -> None:
    """Spans count the bytes of the text, so that all beyond ASCII shifts them."""
    inputs = turn.body.get("inputs")
    text = inputs.get("context", "") if isinstance(inputs, dict) else str(inputs)
    for item in _items(turn.payload):
        start, end = len(text[: item["start"]].encode()), len(text[: item["end"]].encode())
        item["start"], item["end"] = min(start, len(text)), min(end, len(text))


@fault(
    "task.text.empty",
    caught_by={"task.text.filled"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=tuple(s for s in _having("text.filled") if "/text-generation" not in s),
)
def text_empty(turn: Turn) -> None:
    """Every text is empty."""
    for item in _items(turn.payload):
        for key in ("generated_text", "translation_text", "summary_text"):
            if key in item:
                item[key] = " "
        for choice in item.get("choices", ()):
            choice["message"]["content"] = ""


@fault(
    "task.text.longer",
    caught_by={"task.text.shorter"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("text.shorter"),
)
def text_longer(turn: Turn) -> None:
    """The summary is the text itself."""
    for item in _items(turn.payload):
        item["summary_text"] = f"Summary: {turn.body['inputs']}"


@fault(
    "task.mask.only_token",
    caught_by={"task.mask.sequence"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("mask.sequence"),
)
def mask_only_token(turn: Turn) -> None:
    """The sequence holds the token alone."""
    for item in _items(turn.payload):
        item["sequence"] = item["token_str"]


@fault(
    "task.mask.targets_ignored",
    caught_by={"task.mask.targets"},
    at=Stage.REQUEST,
    on=TASK,
    subjects=_having("mask.targets"),
)
def mask_targets_ignored(turn: Turn) -> None:
    """`targets` is ignored."""
    _parameters(turn).pop("targets", None)


@fault(
    "task.generation.too_long",
    caught_by={"task.generation.length"},
    at=Stage.REQUEST,
    on=TASK,
    subjects=_having("generation.length"),
)
def generation_too_long(turn: Turn) -> None:
    """`max_new_tokens` is ignored."""
    _parameters(turn).pop("max_new_tokens", None)


@fault(
    "task.generation.miscounted",
    caught_by={"task.generation.length"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("generation.length"),
)
def generation_miscounted(turn: Turn) -> None:
    """The details count one token fewer than they list."""
    for item in _items(turn.payload):
        if "details" in item:
            item["details"]["generated_tokens"] -= 1


@fault(
    "task.generation.prompt_always",
    caught_by={"task.generation.prompt"},
    at=Stage.REQUEST,
    on=TASK,
    subjects=_having("generation.prompt"),
)
def prompt_always(turn: Turn) -> None:
    """The prompt stands before every text, asked for or not."""
    _parameters(turn)["return_full_text"] = True


@fault(
    "task.generation.prompt_never",
    caught_by={"task.generation.prompt"},
    at=Stage.REQUEST,
    on=TASK,
    subjects=_having("generation.prompt"),
)
def prompt_never(turn: Turn) -> None:
    """The prompt is never part of the text."""
    _parameters(turn)["return_full_text"] = False


@fault(
    "task.generation.stop_ignored",
    caught_by={"task.generation.stop"},
    at=Stage.REQUEST,
    on=TASK,
    subjects=_having("generation.stop"),
)
def stop_ignored(turn: Turn) -> None:
    """Stop sequences are ignored."""
    _parameters(turn).pop("stop", None)


@fault(
    "task.transcript.nonsense",
    caught_by={"task.transcript.words"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("transcript.words"),
)
def transcript_nonsense(turn: Turn) -> None:
    """The sound is read at the wrong rate, and fluent nonsense comes of it."""
    if "chunks" not in turn.payload:
        turn.payload["text"] = "Thank you for watching."


@fault(
    "task.transcript.no_chunks",
    caught_by={"task.transcript.chunks"},
    at=Stage.REQUEST,
    on=TASK,
    subjects=_having("transcript.chunks"),
)
def no_chunks(turn: Turn) -> None:
    """`return_timestamps` is ignored."""
    _parameters(turn).pop("return_timestamps", None)


@fault(
    "task.transcript.milliseconds",
    caught_by={"task.transcript.chunks"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("transcript.chunks"),
)
def milliseconds(turn: Turn) -> None:
    """Timestamps count milliseconds."""
    for chunk in turn.payload.get("chunks", ()):
        chunk["timestamp"] = [1000 * time for time in chunk["timestamp"]]


@fault(
    "task.transcript.backwards",
    caught_by={"task.transcript.chunks"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("transcript.chunks"),
)
def backwards(turn: Turn) -> None:
    """Chunks end before they begin."""
    for chunk in turn.payload.get("chunks", ()):
        chunk["timestamp"].reverse()


@fault(
    "task.transcript.other_text",
    caught_by={"task.transcript.chunks"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("transcript.chunks"),
)
def other_text(turn: Turn) -> None:
    """The chunks leave out the last word of the text."""
    if turn.payload.get("chunks"):
        turn.payload["chunks"].pop()


# Vectors


@fault(
    "task.vectors.zeros",
    caught_by={"task.vectors.finite", "task.vectors.repeatable", "task.vectors.normalized", "task.vectors.near"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("vectors.finite"),
)
def vectors_zeros(turn: Turn) -> None:
    """Every vector is zero."""
    turn.payload = [[0.0] * len(row) for row in turn.payload]


@fault(
    "task.vectors.huge",
    caught_by={"task.vectors.finite"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("vectors.finite"),
)
def vectors_huge(turn: Turn) -> None:
    """Without `normalize` a number is beyond any float32."""
    if not turn.body.get("normalize") and len(turn.payload) == 1:
        turn.payload[0][0] = 1e39


@fault(
    "task.vectors.cut_in_batch",
    caught_by={"task.vectors.dimension"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("vectors.dimension"),
)
def cut_in_batch(turn: Turn) -> None:
    """In a batch vectors have fewer dimensions."""
    if len(turn.payload) > 1:
        turn.payload = [row[:-8] for row in turn.payload]


@fault(
    "task.vectors.random",
    caught_by={"task.vectors.repeatable"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("vectors.repeatable"),
)
def vectors_random(turn: Turn) -> None:
    """Dropout is left on, so that equal texts have other vectors."""
    if len(turn.payload) == 1:
        noise = tasks.vector(turn.request_id)
        mixed = [value + 2 * other for value, other in zip(turn.payload[0], noise, strict=True)]
        length = sum(value * value for value in mixed) ** 0.5
        turn.payload = [[value / length for value in mixed]]


@fault(
    "task.vectors.normalize_ignored",
    caught_by={"task.vectors.normalized"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("vectors.normalized"),
)
def normalize_ignored(turn: Turn) -> None:
    """`normalize` is ignored."""
    turn.payload = [[3 * value for value in row] for row in turn.payload]


@fault(
    "task.vectors.shuffled",
    caught_by={"task.vectors.near"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("vectors.near"),
)
def vectors_shuffled(turn: Turn) -> None:
    """A batch comes back in another order."""
    if len(turn.payload) == 3:
        turn.payload = [turn.payload[0], turn.payload[2], turn.payload[1]]


@fault(
    "task.similarity.first_only",
    caught_by={"task.similarity.count"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("similarity.count"),
)
def similarity_first_only(turn: Turn) -> None:
    """Only the first two sentences are compared."""
    turn.payload = turn.payload[:2]


@fault(
    "task.similarity.percent",
    caught_by={"task.similarity.range"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("similarity.range"),
)
def similarity_percent(turn: Turn) -> None:
    """Similarities are sent in percent."""
    turn.payload = [100 * value for value in turn.payload]


@fault(
    "task.similarity.distance",
    caught_by={"task.similarity.order"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("similarity.order"),
)
def similarity_distance(turn: Turn) -> None:
    """Distances are sent instead of similarities."""
    turn.payload = [1 - value for value in turn.payload]


@fault(
    "task.generation.endless",
    caught_by={"task.generation.length"},
    at=Stage.REQUEST,
    on=TASK,
    subjects=_having("generation.length"),
)
def generation_endless(turn: Turn) -> None:
    """Neither `max_new_tokens` nor `details` is known."""
    _parameters(turn).pop("max_new_tokens", None)
    _parameters(turn).pop("details", None)
    if _parameters(turn):
        _parameters(turn)["max_new_tokens"] = 200


@fault("task.depth.nothing", caught_by={"task.shape"}, at=Stage.PAYLOAD, on=TASK, subjects=_having("depth"))
def depth_nothing(turn: Turn) -> None:
    """Neither form of the depth is there."""
    turn.payload = {}


# Pictures, sounds and films


@fault(
    "task.media.cut_short",
    caught_by={"task.media.decodes"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=MEDIA_TASKS,
)
def media_cut_short(turn: Turn) -> None:
    """Of every medium only the first half is sent."""
    turn.payload = turn.payload[: len(turn.payload) // 2]


@fault(
    "task.media.in_base64",
    caught_by={"task.media.decodes"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=MEDIA_TASKS,
)
def media_in_base64(turn: Turn) -> None:
    """Media are sent as base64 text under their own media type."""
    turn.payload = base64.b64encode(turn.payload)


@fault(
    "task.media.labelled_otherwise",
    caught_by={"task.media.decodes"},
    at=Stage.HEAD,
    on=TASK,
    subjects=_answering("image"),
)
def media_labelled_otherwise(turn: Turn) -> None:
    """A PNG is sent as image/jpeg."""
    turn.headers["content-type"] = "image/jpeg"


@fault(
    "task.media.size_ignored", caught_by={"task.media.size"}, at=Stage.REQUEST, on=TASK, subjects=_having("media.size")
)
def size_ignored(turn: Turn) -> None:
    """The size that was asked for is ignored."""
    for key in ("width", "height", "target_size"):
        _parameters(turn).pop(key, None)


@fault(
    "task.media.sides_swapped", caught_by={"task.media.size"}, at=Stage.REQUEST, on=TASK, subjects=_having("media.size")
)
def sides_swapped(turn: Turn) -> None:
    """Width and height are swapped."""
    sides = _parameters(turn).get("target_size", _parameters(turn))
    if "width" in sides:
        sides["width"], sides["height"] = sides["height"], sides["width"]


@fault(
    "task.media.frames_ignored",
    caught_by={"task.media.frames"},
    at=Stage.REQUEST,
    on=TASK,
    subjects=_having("media.frames"),
)
def frames_ignored(turn: Turn) -> None:
    """The number of frames is ignored."""
    _parameters(turn).pop("num_frames", None)


@fault(
    "task.media.first_words_only",
    caught_by={"task.media.longer"},
    at=Stage.REQUEST,
    on=TASK,
    subjects=_having("media.longer"),
)
def first_words_only(turn: Turn) -> None:
    """Only the first words of a text are said."""
    if isinstance(turn.body.get("inputs"), str):
        turn.body["inputs"] = turn.body["inputs"][:12]


@fault(
    "task.boxes.of_model_size",
    caught_by={"task.boxes.inside"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("boxes.inside"),
)
def boxes_of_model_size(turn: Turn) -> None:
    """Boxes are given in the model's own resolution."""
    for item in turn.payload:
        item["box"] = {side: 8 * value for side, value in item["box"].items()}


@fault(
    "task.boxes.corners_swapped",
    caught_by={"task.boxes.inside"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("boxes.inside"),
)
def corners_swapped(turn: Turn) -> None:
    """The greater corner of a box comes first."""
    for item in turn.payload:
        box = item["box"]
        item["box"] = {"xmin": box["xmax"], "ymin": box["ymax"], "xmax": box["xmin"], "ymax": box["ymin"]}


@fault(
    "task.masks.of_model_size",
    caught_by={"task.masks"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("masks"),
)
def masks_of_model_size(turn: Turn) -> None:
    """Masks have the model's own resolution."""
    for item in turn.payload:
        item["mask"] = base64.b64encode(media.png(32, 32, 1)).decode()


@fault(
    "task.masks.run_lengths",
    caught_by={"task.masks"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("masks"),
)
def masks_run_lengths(turn: Turn) -> None:
    """Masks are sent as run lengths."""
    for item in turn.payload:
        item["mask"] = "0 12 40 3"


@fault(
    "task.depth.of_model_size",
    caught_by={"task.depth"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("depth"),
)
def depth_of_model_size(turn: Turn) -> None:
    """The depth has the model's own resolution."""
    turn.payload["depth"] = base64.b64encode(media.png(24, 24, 1)).decode()


@fault(
    "task.blobs.links",
    caught_by={"task.blobs"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("blobs"),
)
def blobs_links(turn: Turn) -> None:
    """Links stand where the sounds should be."""
    for item in turn.payload:
        item["blob"] = "https://example.com/sound.wav"


@fault(
    "task.blobs.labelled_otherwise",
    caught_by={"task.blobs"},
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("blobs"),
)
def blobs_labelled_otherwise(turn: Turn) -> None:
    """A WAV is said to be FLAC."""
    for item in turn.payload:
        item["content-type"] = "audio/flac"


# Legal


@variation(
    "task.more_keys",
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=JSON_TASKS,
)
def more_keys(turn: Turn) -> None:
    """Results may have keys that no document names."""
    for item in _items(turn.payload):
        item["x_model_version"] = 3


@variation(
    "task.charset",
    at=Stage.HEAD,
    on=TASK,
    subjects=_subjects("text-classification", "question-answering"),
)
def charset(turn: Turn) -> None:
    """A content type may name its character set."""
    turn.headers["content-type"] = "application/json; charset=utf-8"


@variation(
    "task.rounded",
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("scores.range"),
)
def rounded(turn: Turn) -> None:
    """Scores may be rounded to a few digits."""
    for item in _items(turn.payload):
        if "score" in item:
            item["score"] = round(item["score"], 3)


@variation(
    "task.no_results",
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_subjects("token-classification", "object-detection"),
)
def no_results(turn: Turn) -> None:
    """Nothing found is an empty list."""
    turn.payload = []


@variation(
    "task.float_boxes",
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_having("boxes.inside"),
)
def float_boxes(turn: Turn) -> None:
    """Boxes may be given to fractions of a point, which both clients read."""
    for item in turn.payload:
        item["box"] = {side: value + 0.25 for side, value in item["box"].items()}


@variation(
    "task.empty_is_empty", at=Stage.PAYLOAD, on={Kind.ERROR}, subjects=_subjects("text-classification", "summarization")
)
def empty_is_empty(turn: Turn) -> None:
    """An empty input may be answered with an empty list."""
    if _empty(turn):
        turn.status, turn.payload = 200, []


@variation(
    "task.jpeg",
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_answering("image"),
)
def jpeg(turn: Turn) -> None:
    """A picture may come as a JPEG that says so."""
    import io

    import PIL.Image

    file = io.BytesIO()
    PIL.Image.open(io.BytesIO(turn.payload)).convert("RGB").save(file, "JPEG")
    turn.payload = file.getvalue()
    turn.headers["content-type"] = "image/jpeg"


@variation(
    "task.score_order_ties",
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_subjects("text-classification", "image-classification"),
)
def ties(turn: Turn) -> None:
    """Results of one score may stand in any order."""
    items = list(_items(turn.payload))
    for item in items:
        item["score"] = 1 / len(items)


@variation(
    "task.word_pieces",
    at=Stage.PAYLOAD,
    on=TASK,
    subjects=_subjects("token-classification", "fill-mask"),
)
def word_pieces(turn: Turn) -> None:
    """Words may carry their tokenizer's marks."""
    for item in _items(turn.payload):
        for key in ("word", "token_str"):
            if key in item:
                item[key] = "\u0120" + item[key]


@variation("task.octets", at=Stage.HEAD, on=TASK, subjects=MEDIA_TASKS)
def octets(turn: Turn) -> None:
    """A medium may be sent as bytes of no kind: both clients hand them on."""
    turn.headers["content-type"] = "application/octet-stream"


@variation("task.boxes_unclipped", at=Stage.PAYLOAD, on=TASK, subjects=_having("boxes.inside"))
def boxes_unclipped(turn: Turn) -> None:
    """A box may stick out of the picture by a pixel."""
    for item in turn.payload:
        item["box"]["xmin"], item["box"]["ymin"] = -1, -1


@variation("task.uncased", at=Stage.PAYLOAD, on=TASK, subjects=_subjects("token-classification"))
def uncased(turn: Turn) -> None:
    """Words may come in lower case and without accents, as uncased models read them."""
    import unicodedata

    for item in turn.payload:
        bare = unicodedata.normalize("NFKD", item["word"])
        item["word"] = "".join(letter for letter in bare if not unicodedata.combining(letter)).lower()


@variation("task.first_pieces", at=Stage.PAYLOAD, on=TASK, subjects=_having("mask.targets"))
def first_pieces(turn: Turn) -> None:
    """A target that is no token of the model's is scored by its first piece, between special tokens."""
    for item in turn.payload:
        if "targets" in _parameters(turn):
            piece = item["token_str"][:3]
            item["sequence"] = f"[CLS] {item['sequence'].replace(item['token_str'], piece)} [SEP]"
            item["token_str"] = piece


@variation("task.wrapped_base64", at=Stage.PAYLOAD, on=TASK, subjects=_having("masks"))
def wrapped_base64(turn: Turn) -> None:
    """base64 may be broken into lines."""
    for item in turn.payload:
        item["mask"] = base64.encodebytes(base64.b64decode(item["mask"])).decode()


@variation("task.rounding_up", at=Stage.PAYLOAD, on=TASK, subjects=_having("similarity.range"))
def rounding_up(turn: Turn) -> None:
    """Half precision may overshoot 1 a little."""
    turn.payload = [value + 0.001 if value > 0.99 else value for value in turn.payload]

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any
from urllib.parse import urljoin

import pytest
from jsonschema import Draft202012Validator

from roadworthy.schemas import BASE, _thorough, is_valid, load, problem

FOLDER = resources.files("roadworthy.schemas").joinpath("tasks")
TASKS = (
    "audio-classification audio-to-audio automatic-speech-recognition chat-completion depth-estimation "
    "document-question-answering feature-extraction fill-mask image-classification image-segmentation "
    "image-text-to-image image-text-to-text image-text-to-video image-to-image image-to-text image-to-video "
    "object-detection question-answering sentence-similarity summarization table-question-answering "
    "tabular-classification tabular-regression text-classification text-generation text-ranking text-to-audio "
    "text-to-image text-to-speech text-to-video token-classification translation video-classification "
    "visual-question-answering zero-shot-classification zero-shot-image-classification zero-shot-object-detection"
).split()
STREAMED = ("chat-completion", "text-generation")
BODIES = [f"tasks/{task}/{file}.json" for task in TASKS for file in ("input", "output")]
BODIES += [f"tasks/{task}/stream_output.json" for task in STREAMED]
FILES = ["tasks/common.json", *BODIES]

BOX = {"xmin": 1, "ymin": 2.5, "xmax": 30, "ymax": 40}
CHAT = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ANSWER = {
    "id": "1",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
}
TOKEN = {"id": 7, "text": "a", "logprob": None, "special": False}
SCORES = [{"label": "cat", "score": 0.5}]
ROWS = {"inputs": {"data": {"height": [1, 2.5, None], "name": ["a", "b", "c"]}}}
IMAGE = {"inputs": "aGVsbG8="}

# For each body: one that meets it, one that breaks it, and where.
EXAMPLES: dict[str, tuple[Any, Any, str]] = {
    "audio-classification/input": (
        {**IMAGE, "parameters": {"function_to_apply": "softmax", "top_k": 2}},
        {**IMAGE, "parameters": {"function_to_apply": "tanh"}},
        "/parameters/function_to_apply",
    ),
    "audio-classification/output": (SCORES, [{"label": "cat", "score": "0.5"}], "/0/score"),
    "audio-to-audio/input": (IMAGE, {}, "/inputs"),
    "audio-to-audio/output": (
        [{"label": "voice", "blob": "aGVsbG8=", "content-type": "audio/flac"}],
        [{"label": "voice", "blob": "aGVsbG8="}],
        "/0/content-type",
    ),
    "automatic-speech-recognition/input": (
        {**IMAGE, "parameters": {"generation_parameters": {"early_stopping": "never", "num_beams": 2}}},
        {**IMAGE, "parameters": {"generation_parameters": {"num_beams": 2.5}}},
        "/parameters/generation_parameters/num_beams",
    ),
    "automatic-speech-recognition/output": (
        {"text": "a b", "chunks": [{"text": "a", "timestamp": [0, 0.5]}]},
        {"text": "a b", "chunks": [{"text": "a", "timestamp": [0]}]},
        "/chunks/0/timestamp",
    ),
    "chat-completion/input": (
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [CALL]}], "temperature": None, "stop": "x"},
        {**CHAT, "max_tokens": "5"},
        "/max_tokens",
    ),
    "chat-completion/output": (ANSWER, {**ANSWER, "choices": None}, "/choices"),
    "chat-completion/stream_output": (
        {"id": "1", "choices": [{"index": 0, "delta": {"content": "a"}}]},
        {"id": 1},
        "/id",
    ),
    "depth-estimation/input": (IMAGE, {"inputs": 1}, "/inputs"),
    "depth-estimation/output": ({"predicted_depth": [[0.5]], "depth": "aGVsbG8="}, {"depth": 1}, "/depth"),
    "document-question-answering/input": (
        {"inputs": {"image": "aGVsbG8=", "question": "who?"}, "parameters": {"word_boxes": ["a", [0, 0, 9, 9.5]]}},
        {"inputs": {"image": "aGVsbG8="}},
        "/inputs/question",
    ),
    "document-question-answering/output": (
        [{"answer": "a", "score": 0.5, "start": 1, "end": 2}],
        {"answer": "a", "score": 0.5, "start": 1, "end": 2},
        "",
    ),
    "feature-extraction/input": ({"inputs": ["a", "b"], "truncate": None}, {"inputs": 1}, "/inputs"),
    "feature-extraction/output": ([[0.5, 1]], [0.5], "/0"),
    "fill-mask/input": (
        {"inputs": "a [MASK]", "parameters": {"targets": ["b"]}},
        {"inputs": "a [MASK]", "parameters": {"targets": "b"}},
        "/parameters/targets",
    ),
    "fill-mask/output": (
        [{"sequence": "a b", "score": 0.5, "token": 7, "token_str": "b"}],
        [{"sequence": "a b", "score": 0.5, "token": 7, "tokenStr": "b"}],
        "/0/token_str",
    ),
    "image-classification/input": (IMAGE, {"parameters": {}}, "/inputs"),
    "image-classification/output": (SCORES, [{"score": 1}], "/0/label"),
    "image-segmentation/input": (
        {**IMAGE, "parameters": {"subtask": "panoptic"}},
        {**IMAGE, "parameters": {"subtask": "other"}},
        "/parameters/subtask",
    ),
    "image-segmentation/output": ([{"label": "sky", "mask": "aGVsbG8="}], [{"label": "sky"}], "/0/mask"),
    "image-text-to-image/input": (
        {"parameters": {"prompt": "a cat", "target_size": {"width": 64, "height": 64}}},
        {"parameters": {"target_size": {"width": 64}}},
        "/parameters/target_size/height",
    ),
    "image-text-to-image/output": ({"image": "aGVsbG8="}, {}, "/image"),
    "image-text-to-text/input": (CHAT, {"messages": [{"content": "hello"}]}, "/messages/0/role"),
    "image-text-to-text/output": (ANSWER, {**ANSWER, "id": None}, "/id"),
    "image-text-to-video/input": (
        {"parameters": {"prompt": "a cat"}},
        {"parameters": {"negative_prompt": ["dog"]}},
        "/parameters/negative_prompt",
    ),
    "image-text-to-video/output": ({"video": "aGVsbG8="}, {}, "/video"),
    "image-to-image/input": (
        {**IMAGE, "parameters": {"guidance_scale": 7.5}},
        {**IMAGE, "parameters": {"guidance_scale": "7.5"}},
        "/parameters/guidance_scale",
    ),
    "image-to-image/output": ({"image": "aGVsbG8="}, [], ""),
    "image-to-text/input": (IMAGE, {**IMAGE, "parameters": {"max_new_tokens": 1.5}}, "/parameters/max_new_tokens"),
    "image-to-text/output": ({"generated_text": "a cat"}, {"generatedText": "a cat"}, "/generated_text"),
    "image-to-video/input": ({**IMAGE, "parameters": {"num_frames": 16}}, {"inputs": None}, "/inputs"),
    "image-to-video/output": ({"video": "aGVsbG8="}, {"image": ""}, "/video"),
    "object-detection/input": ({**IMAGE, "parameters": {"threshold": 0.5}}, {"inputs": []}, "/inputs"),
    "object-detection/output": (
        [{"label": "cat", "score": 0.5, "box": BOX}],
        [{"label": "cat", "score": 0.5, "box": {**BOX, "xmax": "9"}}],
        "/0/box/xmax",
    ),
    "question-answering/input": (
        {"inputs": {"context": "a", "question": "b"}},
        {"inputs": {"context": "a"}},
        "/inputs/question",
    ),
    "question-answering/output": (
        [{"answer": "a", "score": 0.5, "start": 0, "end": 1}],
        [{"answer": "a", "score": 0.5, "start": 0, "end": 1.5}],
        "/0/end",
    ),
    "sentence-similarity/input": (
        {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
        {"inputs": {"source_sentence": "a", "sentences": "b"}},
        "/inputs/sentences",
    ),
    "sentence-similarity/output": ([0.5, 1], [[0.5]], "/0"),
    "summarization/input": (
        {"inputs": "a", "parameters": {"truncation": "only_first", "generate_parameters": {"max_length": 5}}},
        {"inputs": "a", "parameters": {"truncation": True}},
        "/parameters/truncation",
    ),
    "summarization/output": ({"summary_text": "a"}, [{"summary_text": "a"}], ""),
    "table-question-answering/input": (
        {"inputs": {"table": {"a": ["1", "2"]}, "question": "b"}},
        {"inputs": {"table": {"a": [1]}, "question": "b"}},
        "/inputs/table/a/0",
    ),
    "table-question-answering/output": (
        [{"answer": "1", "cells": ["1"], "coordinates": [[0, 0]], "aggregator": "SUM"}],
        [{"answer": "1", "cells": ["1"], "coordinates": [[0]]}],
        "/0/coordinates/0",
    ),
    "tabular-classification/input": (ROWS, {"inputs": {}}, "/inputs/data"),
    "tabular-classification/output": (["a", 1], [None], "/0"),
    "tabular-regression/input": (ROWS, {"inputs": {"data": {"a": 1}}}, "/inputs/data/a"),
    "tabular-regression/output": ([1.5, 2], ["1.5"], "/0"),
    "text-classification/input": ({"inputs": "a"}, {"inputs": {"text": "a"}}, "/inputs"),
    "text-classification/output": (SCORES, [SCORES], "/0"),
    "text-generation/input": (
        {"inputs": "a", "parameters": {"grammar": {"type": "regex", "value": "a+"}, "seed": None}, "stream": True},
        {"inputs": "a", "parameters": {"watermark": None}},
        "/parameters/watermark",
    ),
    "text-generation/output": (
        {
            "generated_text": "a",
            "details": {"finish_reason": "length", "generated_tokens": 1, "prefill": [], "tokens": [TOKEN]},
        },
        {
            "generated_text": "a",
            "details": {"finish_reason": "stop", "generated_tokens": 1, "prefill": [], "tokens": [TOKEN]},
        },
        "/details/finish_reason",
    ),
    "text-generation/stream_output": (
        {"index": 1, "token": TOKEN, "generated_text": None, "details": None},
        {"index": 1, "token": {**TOKEN, "special": None}},
        "/token/special",
    ),
    "text-ranking/input": ({"query": "a", "texts": ["b"], "return_text": True}, {"query": "a"}, "/texts"),
    "text-ranking/output": ([{"index": 0, "score": 0.5, "text": "b"}], [{"index": 0}], "/0/score"),
    "text-to-audio/input": ({"inputs": "a"}, {"inputs": 1}, "/inputs"),
    "text-to-audio/output": ({"audio": "aGVsbG8=", "sampling_rate": 16000}, {"audio": "aGVsbG8="}, "/sampling_rate"),
    "text-to-image/input": (
        {"inputs": "a", "parameters": {"width": 64, "height": 64, "seed": 1}},
        {"inputs": "a", "parameters": {"width": "64"}},
        "/parameters/width",
    ),
    "text-to-image/output": ({"image": "aGVsbG8="}, {"images": []}, "/image"),
    "text-to-speech/input": (
        {"inputs": "a", "parameters": {"generation_parameters": {"do_sample": True}}},
        {"inputs": "a", "parameters": {"generation_parameters": {"early_stopping": "always"}}},
        "/parameters/generation_parameters/early_stopping",
    ),
    "text-to-speech/output": ({"audio": "aGVsbG8="}, {"sampling_rate": 16000}, "/audio"),
    "text-to-video/input": (
        {"inputs": "a", "parameters": {"negative_prompt": ["b"], "num_frames": 16}},
        {"inputs": "a", "parameters": {"negative_prompt": "b"}},
        "/parameters/negative_prompt",
    ),
    "text-to-video/output": ({"video": "aGVsbG8="}, "aGVsbG8=", ""),
    "token-classification/input": (
        {"inputs": "a", "parameters": {"aggregation_strategy": "max"}},
        {"inputs": "a", "parameters": {"aggregation_strategy": "all"}},
        "/parameters/aggregation_strategy",
    ),
    "token-classification/output": (
        [{"entity_group": "PER", "score": 0.5, "word": "a", "start": 0, "end": 1}],
        [{"entity_group": "PER", "score": 0.5, "word": "a", "start": None, "end": 1}],
        "/0/start",
    ),
    "translation/input": (
        {"inputs": "a", "parameters": {"src_lang": "en", "tgt_lang": "fr"}},
        {"inputs": ["a"]},
        "/inputs",
    ),
    "translation/output": ({"translation_text": "a"}, [{"translation_text": "a"}], ""),
    "video-classification/input": (
        {**IMAGE, "parameters": {"frame_sampling_rate": 4}},
        {**IMAGE, "parameters": {"frame_sampling_rate": 0.5}},
        "/parameters/frame_sampling_rate",
    ),
    "video-classification/output": (SCORES, {}, ""),
    "visual-question-answering/input": (
        {"inputs": {"image": "aGVsbG8=", "question": "b"}, "parameters": {"top_k": 1}},
        {"inputs": {"image": "aGVsbG8="}},
        "/inputs/question",
    ),
    "visual-question-answering/output": ([{"answer": "a", "score": 1}], [{"answer": "a"}], "/0/score"),
    "zero-shot-classification/input": (
        {"inputs": "a", "parameters": {"candidate_labels": ["b", "c"], "multi_label": False}},
        {"inputs": "a"},
        "/parameters",
    ),
    "zero-shot-classification/output": (SCORES, {"labels": ["b"], "scores": [1]}, ""),
    "zero-shot-image-classification/input": (
        {**IMAGE, "parameters": {"candidate_labels": ["b"], "hypothesis_template": "a {}"}},
        {**IMAGE, "parameters": {}},
        "/parameters/candidate_labels",
    ),
    "zero-shot-image-classification/output": (SCORES, [{"label": 1, "score": 1}], "/0/label"),
    "zero-shot-object-detection/input": (
        {**IMAGE, "parameters": {"candidate_labels": ["b"]}},
        {**IMAGE, "parameters": {"candidate_labels": "b"}},
        "/parameters/candidate_labels",
    ),
    "zero-shot-object-detection/output": (
        [{"label": "b", "score": 0.5, "box": BOX}],
        [{"label": "b", "score": 0.5}],
        "/0/box",
    ),
}


def subschemas(schema: Any, pointer: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a schema, itself first, with its JSON pointer."""
    if not isinstance(schema, dict):
        return
    yield pointer, schema
    for word in ("properties", "$defs"):
        for name, child in schema.get(word, {}).items():
            yield from subschemas(child, f"{pointer}/{word}/{name}")
    for word in ("items", "additionalProperties"):
        yield from subschemas(schema.get(word), f"{pointer}/{word}")
    for word in ("anyOf", "oneOf", "allOf"):
        for place, child in enumerate(schema.get(word, [])):
            yield from subschemas(child, f"{pointer}/{word}/{place}")


def referred(base: str, ref: str) -> dict[str, Any]:
    """The schema that a reference in the file of this base names."""
    address, _, pointer = urljoin(base, ref).partition("#")
    found: Any = load(address.removeprefix(BASE))
    for part in pointer.split("/")[1:]:
        found = found[part]
    assert isinstance(found, dict)
    return found


BESIDE = ("manifest.json", "hub_output.json")
"""Files that tell of the hub's own clients, not of the published specification."""


def test_there_is_a_file_for_every_body_and_no_other() -> None:
    there = {
        f"tasks/{folder.name}/{file.name}"
        for folder in FOLDER.iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name not in BESIDE
    }
    there |= {f"tasks/{file.name}" for file in FOLDER.iterdir() if file.is_file()}
    assert there == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_a_sound_schema_named_by_its_path(name: str) -> None:
    schema = load(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == BASE + name
    assert schema["title"]


@pytest.mark.parametrize("name", FILES)
def test_every_schema_in_a_file_says_what_it_means(name: str) -> None:
    base = BASE + name
    silent = [
        pointer
        for pointer, schema in subschemas(load(name))
        if not (schema.get("description") or ("$ref" in schema and referred(base, schema["$ref"]).get("description")))
    ]
    assert silent == []


@pytest.mark.parametrize("name", FILES)
def test_more_than_the_known_properties_is_always_allowed(name: str) -> None:
    closed = [
        pointer
        for pointer, schema in subschemas(load(name))
        if schema.get("additionalProperties") is False or "unevaluatedProperties" in schema
    ]
    assert closed == []


@pytest.mark.parametrize("name", FILES)
def test_what_is_required_is_described(name: str) -> None:
    undescribed = [
        f"{pointer}/{key}"
        for pointer, schema in subschemas(load(name))
        for key in schema.get("required", [])
        if key not in schema.get("properties", {})
    ]
    assert undescribed == []


def test_every_shared_definition_is_in_use() -> None:
    used = {
        schema["$ref"].rpartition("/")[2]
        for name in FILES
        for _, schema in subschemas(load(name))
        if "$defs" in schema.get("$ref", "")
    }
    assert set(load("tasks/common.json")["$defs"]) - used == set()


def test_there_is_an_example_of_every_body() -> None:
    assert {f"tasks/{name}.json" for name in EXAMPLES} == set(BODIES)


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_right_body_passes_and_a_wrong_one_is_placed(example: str) -> None:
    right, wrong, pointer = EXAMPLES[example]
    name = f"tasks/{example}.json"
    assert problem(name, right) is None
    found = problem(name, wrong)
    assert found is not None
    assert found.pointer == pointer


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("value", ["null", "1", '"a"', "[]", "{}", "[null]", '{"inputs": {}}', "true"])
def test_both_validators_resolve_every_reference_and_agree(name: str, value: str) -> None:
    body = json.loads(value)
    assert _thorough(name).is_valid(body) == is_valid(name, body)

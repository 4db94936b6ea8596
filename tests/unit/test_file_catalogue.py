"""The catalogue in a file: what is read, what is refused, and a file that changes."""

from __future__ import annotations

import asyncio
import json
import os
import time
import tracemalloc

import pytest

from roadworthy.errors import ConfigError
from roadworthy.mapping_api.model_catalogue.file import FileCatalogue
from roadworthy.mapping_api.records import ModelFacts
from roadworthy.mapping_api.registration import TASKS

pytestmark = pytest.mark.anyio


def write(path, *lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


async def test_a_byte_order_mark_empty_lines_and_carriage_returns_do_no_harm(tmp_path):
    path = tmp_path / "models.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "a/b", "tags": ["x\xe2\x80\xa8y", "x", "x"]}\r\n\r\n  \n{"id": "gpt2"}')
    catalogue = FileCatalogue(path)
    assert await catalogue.everything() == [ModelFacts("a/b", None, ("x\u2028y", "x")), ModelFacts("gpt2")]
    assert await catalogue.get("a/c") is None


BAD = {
    "not json": ("line 2: expected one JSON object a line", "{id: 1}"),
    "a list": ("line 2: expected one JSON object a line", "[]"),
    "no id": ("line 2: id: Field required", {"pipeline_tag": "translation"}),
    "bad id": ("line 2: id: ", {"id": "a/b/c"}),
    "bad task": ("line 2: pipeline_tag: .*got 'Text Generation'", {"id": "a/b", "pipeline_tag": "Text Generation"}),
    "a tag with a comma": ("line 2: tags.0: ", {"id": "a/b", "tags": ["a,b"]}),
    "tags of numbers": ("line 2: tags.1: .*got 5", {"id": "a/b", "tags": ["a", 5]}),
    "unknown name": ("line 2: tag: unknown; a line has id, pipeline_tag", {"id": "a/b", "tag": "x"}),
    "there twice": ("line 2: the model one/one stands on line 1 too", {"id": "one/one"}),
    "half a character": ("line 2: ", '{"id": "a/b", "tags": ["\\ud800"]}'),
    "far too long": ("line 2: expected at most 1 MiB", '{"id": "a/b"}' + " " * 2**20),
    "deep": ("line 2: ", '{"id": ' * 100_000),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_explained_with_its_number(tmp_path, case):
    message, line = BAD[case]
    path = write(tmp_path / "models.jsonl", {"id": "one/one"}, line)
    with pytest.raises(ConfigError, match=message) as raised:
        FileCatalogue(path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_every_bad_line_is_told_up_to_twenty(tmp_path):
    with pytest.raises(ConfigError) as raised:
        FileCatalogue(write(tmp_path / "m.jsonl", *["{"] * 3, {"id": "a/b"}, *["{"] * 22))
    lines = str(raised.value).splitlines()
    assert len(lines) == 22
    assert lines[4].strip().startswith("line 5:")
    assert lines[-1].strip() == "and 5 more"


def test_bytes_that_are_no_utf_8_and_files_that_are_not_there_are_told(tmp_path):
    path = tmp_path / "models.jsonl"
    path.write_bytes(b'{"id": "a/b"}\n{"id": "\xff\xfe"}\n')
    with pytest.raises(ConfigError, match="line 2: "):
        FileCatalogue(path)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        FileCatalogue(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        FileCatalogue(tmp_path)


async def test_models_are_found_by_all_of_their_tags(tmp_path):
    path = write(tmp_path / "m.jsonl", {"id": "a", "tags": ["x", "y"]}, {"id": "b", "tags": ["y", "x"]}, {"id": "c"})
    catalogue = FileCatalogue(path)
    assert [facts.id for facts in await catalogue.tagged(["y", "x"])] == ["a", "b"]
    assert [facts.id for facts in await catalogue.tagged(["y", "x"], at_most=1)] == ["a"]
    assert await catalogue.tagged(["x", "z"]) == []


async def test_a_changed_file_is_read_again_and_a_bad_one_leaves_the_old(tmp_path):
    path = write(tmp_path / "m.jsonl", {"id": "a"}, {"id": "b"})
    catalogue = FileCatalogue(path)
    assert await catalogue.read_again() is None

    write(path, {"id": "b"}, {"id": "c"})
    os.utime(path, (1, 1))
    assert await catalogue.read_again() == {"a"}
    assert await catalogue.get("c") is not None

    write(path, "{broken")
    with pytest.raises(ConfigError, match="line 1"):
        await catalogue.read_again()
    assert await catalogue.read_again() is None
    assert await catalogue.get("c") is not None

    path.unlink()
    assert await catalogue.read_again() is None
    with pytest.raises(ConfigError, match="cannot be read"):
        await catalogue.read_again(always=True)
    write(path, {"id": "c"})
    assert await catalogue.read_again() == {"b"}


async def test_the_catalogue_that_comes_along_has_a_model_for_every_task_the_clients_call():
    models = await FileCatalogue().everything()
    assert models is not None
    assert 60 <= len(models) <= 150
    assert {facts.pipeline_tag for facts in models} <= TASKS
    clients = """
        audio-classification audio-to-audio automatic-speech-recognition conversational document-question-answering
        feature-extraction fill-mask image-classification image-segmentation image-text-to-text image-to-image
        image-to-text image-to-video object-detection question-answering sentence-similarity summarization
        table-question-answering tabular-classification tabular-regression text-classification text-generation
        text-to-audio text-to-image text-to-speech text-to-video token-classification translation
        visual-question-answering zero-shot-classification zero-shot-image-classification
    """.split()
    assert [task for task in clients if not any(facts.serves(task) for facts in models)] == []
    for facts in models:
        assert ("lora" in facts.tags) == (facts.adapter_weights_path is not None)


async def test_two_hundred_thousand_models_load_in_seconds_with_little_memory(tmp_path):
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for number in range(200_000):
            base = f"base_model:adapter:org/base-{number % 500}"
            tags = ["diffusers", "safetensors", "lora", base, f"region:{number % 3}"]
            file.write(
                json.dumps({"id": f"org-{number % 9999}/lora-{number}", "pipeline_tag": "text-to-image", "tags": tags})
                + "\n"
            )
    start_s = time.process_time()
    catalogue = FileCatalogue(path)
    assert time.process_time() - start_s < 15
    start_s = time.process_time()
    assert len(await catalogue.tagged(["lora", "base_model:adapter:org/base-7"])) == 400
    assert time.process_time() - start_s < 0.2
    del catalogue
    tracemalloc.start()
    try:
        again = await asyncio.to_thread(FileCatalogue, path)
        held_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert await again.get("org-0/lora-0") is not None
    assert held_bytes < 150 * 2**20

"""The sandbox's media and the routes beside chat that probes do not walk: fetched images, other recordings."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request

import PIL.Image
import pytest

from roadworthy.conformance.probes.transcription import BOUNDARY, form
from roadworthy.conformance.reading import media as reader
from roadworthy.sandbox import media
from roadworthy.sandbox.app import Options, Sandbox
from roadworthy.sandbox.families.embeddings import vector
from roadworthy.sandbox.families.transcription import heard
from roadworthy.sandbox.server import running

KEY = "sandbox-key-0123456789abcdef"
WAV = media.wav("some words to hear")


@pytest.fixture(scope="module")
def url():
    with running(Sandbox((), Options(api_key=KEY))) as url:
        yield url


def post(url, path, body, content_type="application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": content_type}
    request = urllib.request.Request(url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_an_image_can_be_fetched_at_its_address_without_a_key(url):
    asked = {"model": "acme/text-to-image", "prompt": "A lake.", "size": "128x96"}
    status, body = post(url, "/images/generations", asked)
    assert status == 200
    address = json.loads(body)["data"][0]["url"]
    with urllib.request.urlopen(address, timeout=20) as reply:
        assert reply.headers["content-type"] == "image/png"
        assert PIL.Image.open(io.BytesIO(reply.read())).size == (128, 96)
    with pytest.raises(urllib.error.HTTPError, match="404") as raised:
        urllib.request.urlopen(address + "x", timeout=20)
    raised.value.close()


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "opus"])
def test_a_recording_is_heard_in_every_format(url, format):
    data = WAV if format == "wav" else media.encoded(WAV, format)
    raw = form({"model": "acme/automatic-speech-recognition", "response_format": "verbose_json"}, data)
    status, body = post(url, "/audio/transcriptions", raw, f"multipart/form-data; boundary={BOUNDARY}")
    answer = json.loads(body)
    assert status == 200, answer
    assert answer["duration"] == pytest.approx(media.duration_s(WAV), abs=0.15)
    assert answer["text"]


def test_the_same_sound_is_heard_alike_without_loss_and_silence_says_nothing():
    assert media.samples(media.encoded(WAV, "flac")) == media.samples(WAV)
    assert heard(*media.samples(WAV)) == heard(*media.samples(media.encoded(WAV, "flac")))
    assert heard(bytes(32_000), 16_000) == []


@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        ("/completions", {"model": "acme/text-generation", "prompt": [1, 2]}, "prompt"),
        ("/completions", {"model": "acme/text-generation", "prompt": "x", "n": 0}, "n"),
        ("/completions", {"model": "acme/text-generation", "prompt": "x", "echo": "yes"}, "echo"),
        ("/completions", {"model": 7, "prompt": "x"}, "model"),
        ("/embeddings", {"model": "acme/feature-extraction", "input": []}, "input"),
        ("/embeddings", {"model": "acme/feature-extraction", "input": "x", "dimensions": True}, "dimensions"),
        ("/embeddings", {"model": "acme/feature-extraction", "input": "x", "encoding_format": 1}, "encoding_format"),
        ("/images/generations", {"model": "acme/text-to-image", "prompt": "x", "n": 99}, "n"),
        ("/images/generations", {"model": "acme/text-to-image", "prompt": "x", "size": "9999x9999"}, "size"),
        ("/images/generations", {"model": "acme/text-to-image", "prompt": "x", "seed": "y"}, "seed"),
        ("/audio/speech", {"model": "acme/text-to-speech", "input": "x" * 5000}, "input"),
        ("/audio/speech", {"model": "acme/text-to-speech", "input": "x", "voice": 3}, "voice"),
        ("/audio/speech", {"model": "acme/text-to-speech", "input": "x", "speed": "fast"}, "speed"),
    ],
)
def test_a_refusal_names_the_field(url, path, body, names):
    status, answer = post(url, path, body)
    error = json.loads(answer)["error"]
    assert status in (400, 404)
    assert error["param"] == names


@pytest.mark.parametrize(
    "type", ["application/json", "multipart/form-data", f"multipart/form-data; boundary={BOUNDARY}"]
)
def test_a_form_that_is_none_is_refused(url, type):
    assert post(url, "/audio/transcriptions", b"--x\r\n\r\n", type)[0] in (400, 404)


def test_texts_that_share_words_get_vectors_that_are_near():
    def likeness(one, other):
        return sum(a * b for a, b in zip(vector(one), vector(other), strict=True))

    assert likeness("a small cat", "a small cat") == pytest.approx(1, abs=1e-5)
    assert likeness("a small cat", "the small cats") > likeness("a small cat", "interest rates rose")
    assert sum(value * value for value in vector("", 8)) == pytest.approx(1, abs=1e-5)


def test_longer_texts_are_spoken_longer_and_faster_ones_shorter():
    lengths = [
        reader.audio(media.sound(text, "wav", speed)).duration_s
        for text, speed in (("x" * 20, 1), ("x" * 40, 1), ("x" * 40, 2))
    ]
    assert lengths == pytest.approx([1.2, 2.4, 1.2], abs=0.02)

from __future__ import annotations

import json

import pytest

from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.plan import select
from roadworthy.conformance.probe import PROBES
from roadworthy.conformance.reading import media
from roadworthy.conformance.subject import Api
from roadworthy.conformance.verdict import Lens
from roadworthy.schemas import load, manifest

select()
TASKS = manifest.names()
ROUTED = [task for task in TASKS if "serverless" in manifest.manifest(task).routes]
NAMED = (
    "audio-classification audio-to-audio automatic-speech-recognition chat-completion depth-estimation "
    "document-question-answering feature-extraction fill-mask image-classification image-segmentation "
    "image-text-to-image image-text-to-text image-text-to-video image-to-image image-to-text image-to-video "
    "object-detection question-answering sentence-similarity summarization table-question-answering "
    "tabular-classification tabular-regression text-classification text-generation text-ranking text-to-audio "
    "text-to-image text-to-speech text-to-video token-classification translation video-classification "
    "visual-question-answering zero-shot-classification zero-shot-image-classification zero-shot-object-detection"
).split()


def test_every_task_of_the_hub_has_its_folder():
    assert sorted(NAMED) == list(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_a_manifest_says_how_its_task_is_called(task):
    form = manifest.manifest(task)
    assert form.method == "POST"
    assert set(form.routes) <= set(Api)
    assert all(path.startswith("/") for path in form.routes.values())
    assert form.accepts[0] == "application/json"
    assert form.response in ("json", "image", "audio", "video")
    assert form.latency_limit_s == 30
    load(form.output)
    load(form.spec_output)


@pytest.mark.parametrize("task", ROUTED)
def test_its_rules_are_checks_and_its_cases_are_probes(task):
    form = manifest.manifest(task)
    assert {f"task.{rule}" for rule in form.rules} <= set(CHECKS)
    assert {f"task.{case}" for case in form.cases} <= set(PROBES)
    assert {"plain", "wrong", "empty"} <= set(form.cases)
    assert set(form.conflicts) <= set(Lens)


@pytest.mark.parametrize("task", ROUTED)
def test_its_examples_are_whole(task):
    for case in manifest.manifest(task).cases.values():
        assert (case.body is None) is (case.raw is not None)
        if case.raw is not None:
            assert len(manifest.media(case.raw)) < 100_000
        else:
            text = json.dumps(manifest.expand(case.body, "acme/m"))
            assert manifest.MEDIA_KEY not in text
            assert manifest.MODEL not in text


def test_the_media_are_real():
    assert media.image(manifest.media("scene.png")).width == 160
    assert media.image(manifest.media("invoice.png")).width == 320
    assert 1.5 < media.audio(manifest.media("speech.wav")).duration_s < 3
    assert media.video(manifest.media("clip.mp4")).frames == 8
    with pytest.raises(media.MediaError):
        media.image(manifest.media("note.txt"))

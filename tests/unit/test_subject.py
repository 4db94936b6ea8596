from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy.conformance.subject import CHAT, Api, Subject
from roadworthy.errors import UsageError
from roadworthy.schemas import manifest


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("acme/chat", Subject("acme/chat", CHAT, Api.OPENAI)),
        ("acme/chat=conversational", Subject("acme/chat", CHAT, Api.OPENAI)),
        ("acme/chat=@responses", Subject("acme/chat", CHAT, Api.RESPONSES)),
        ("acme/e=feature-extraction", Subject("acme/e", "feature-extraction", Api.OPENAI)),
        ("acme/e=feature-extraction@serverless", Subject("acme/e", "feature-extraction", Api.SERVERLESS)),
        ("acme/c=text-classification", Subject("acme/c", "text-classification", Api.SERVERLESS)),
        ("acme/t=@tgi", Subject("acme/t", "text-generation", Api.TGI)),
        ("acme/t=@endpoints", Subject("acme/t", "endpoint-management", Api.ENDPOINTS)),
        ("odd=name=text-to-video@jobs", Subject("odd=name", "text-to-video", Api.JOBS)),
        ("acme/m:fastest", Subject("acme/m:fastest", CHAT, Api.OPENAI)),
    ],
)
def test_a_notation_names_model_task_and_api(text, subject):
    assert Subject.parse(text) == subject


@given(
    st.text(st.characters(exclude_characters="="), min_size=1),
    st.sampled_from(manifest.names()),
    st.sampled_from(sorted(Api)),
)
def test_a_label_names_its_subject_again(model, task, api):
    subject = Subject(model, task, api)
    form = manifest.manifest(task)
    if api in form.routes or (api is Api.JOBS and form.response in ("image", "video")):
        assert Subject.parse(subject.label) == subject
    else:
        with pytest.raises(UsageError, match="does not serve"):
            Subject.parse(subject.label)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("m=juggling", ("no task 'juggling'", "text-classification")),
        ("m=feature-extractoin", ("did you mean feature-extraction?",)),
        ("m=chat-completion@serverless", ("does not serve chat-completion", "openai, responses")),
        ("m=", ("NAME=TASK",)),
        ("=translation", ("NAME=TASK",)),
        ("m=translation@carrier-pigeon", ("no API family 'carrier-pigeon'", "serverless")),
    ],
)
def test_what_is_unknown_is_named_beside_what_is_known(text, words):
    with pytest.raises(UsageError) as raised:
        Subject.parse(text)
    for word in words:
        assert word in str(raised.value)

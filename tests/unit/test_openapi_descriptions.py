"""Our OpenAPI descriptions are valid documents, whole, bounded, and say which operation serves which task."""

from __future__ import annotations

import pytest
from openapi_spec_validator import validate

from roadworthy.conformance.subject import Api
from roadworthy.schemas import is_valid, load, manifest, openapi, problem

TASKS = [task for task in manifest.names() if task not in ("chat-completion", "image-text-to-text")]


def walk(value):
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


def test_there_is_one_for_every_family_but_that_of_own_descriptions():
    assert set(openapi.names()) == set(Api) - {Api.JOBS}
    assert openapi.operations("jobs", "text-to-image") == ()


@pytest.mark.parametrize("name", openapi.names())
def test_it_is_valid_and_refers_to_nothing_outside_itself(name):
    document = openapi.bundled(name)
    validate(document)
    references = [node["$ref"] for node in walk(document) if isinstance(node.get("$ref"), str)]
    assert references
    assert all(reference.startswith("#/components/") for reference in references)


@pytest.mark.parametrize("name", openapi.names())
def test_bundling_leaves_the_file_as_it_was(name):
    first = openapi.bundled(name)
    first["paths"].clear()
    assert load(f"openapi/{name}.json")["paths"]
    assert openapi.bundled(name)["paths"]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_of_the_hub_has_a_request_and_an_answer(task):
    run, pipeline = openapi.operations("serverless", task)
    assert run.request == pipeline.request
    assert "inputs" in run.request["properties"] or task == "text-ranking"
    [kind] = run.answers["200"]
    form = manifest.manifest(task)
    assert kind == ("application/json" if form.response == "json" else f"{form.response}/*")


@pytest.mark.parametrize("task", [task for task in manifest.served_by("openai") if task != "chat-completion"])
def test_each_openai_task_has_its_own_route_and_the_list_of_models(task):
    ids = [operation.id for operation in openapi.operations("openai", task)]
    assert len(ids) == 2
    assert ids[1] == "listModels"


@pytest.mark.parametrize("name", openapi.names())
def test_requests_are_bounded_in_size(name):
    tasks = TASKS if name == "serverless" else ["text-generation", "chat-completion", "endpoint-management"]
    for task in tasks:
        for operation in openapi.operations(name, task):
            for schema in walk(operation.request or {}):
                if "x-subject" in schema or "x-media" in schema or "enum" in schema:
                    continue
                if schema.get("type") == "string" and "description" in schema:
                    assert "maxLength" in schema or "const" in schema, (operation.id, schema)
                if schema.get("type") in ("integer", "number") and "description" in schema:
                    assert {"maximum"} <= set(schema), (operation.id, schema)
                if schema.get("type") == "array":
                    assert schema["maxItems"] <= 5, (operation.id, schema)


def test_endpoints_are_only_read():
    assert {operation.method for operation in openapi.operations("endpoints", "endpoint-management")} == {"GET"}


def test_a_status_and_a_type_lead_to_the_schema_of_the_answer():
    operation = openapi.operation("tgi", "text-generation", "generate")
    name = operation.schema(200, "application/json")
    assert is_valid(name, {"generated_text": "a"})
    assert problem(name, {"generated_text": 7}).pointer == "/generated_text"
    assert operation.documents(422)
    assert not operation.documents(207)
    assert operation.schema(200, "text/html") is None
    assert openapi.operation("tgi", "text-generation", "nothing") is None


def test_a_range_of_types_takes_any_of_them_in_any_form():
    operation = openapi.operation("serverless", "text-to-image", "runModel")
    assert operation.schema(200, "image/webp") == ""
    assert operation.schema(200, "application/json") is None


def test_a_reference_into_another_file_is_followed_when_judging():
    operation = openapi.operation("serverless", "text-classification", "runModel")
    name = operation.schema(200, "application/json")
    assert is_valid(name, [[{"label": "positive", "score": 0.5}]])
    assert problem(name, [[{"label": "positive"}]]).pointer == "/0/0/score"

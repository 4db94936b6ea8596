"""The rules a mapping must meet before it is written (register-as-a-provider, section 3, Validation)."""

from __future__ import annotations

import difflib

from roadworthy.mapping_api.errors import BadRequest
from roadworthy.mapping_api.model_catalogue import ModelCatalogue
from roadworthy.mapping_api.names import CONVERSATIONAL
from roadworthy.mapping_api.records import Item, ModelFacts

LORA = "lora"
MATCHES_AT_REGISTRATION = 100
"""Of so many models of a new tag filter the facts are kept at once; the upkeep finds the others within a minute."""

TASKS = frozenset(
    """
    any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition
    depth-estimation document-question-answering feature-extraction fill-mask graph-ml image-classification
    image-feature-extraction image-segmentation image-text-to-image image-text-to-text image-text-to-video
    image-to-3d image-to-image image-to-text image-to-video keypoint-detection mask-generation multiple-choice
    object-detection question-answering reinforcement-learning robotics sentence-similarity summarization
    table-question-answering table-to-text tabular-classification tabular-regression tabular-to-text
    text-classification text-generation text-ranking text-retrieval text-to-3d text-to-audio text-to-image
    text-to-speech text-to-video text2text-generation time-series-forecasting token-classification translation
    unconditional-image-generation video-classification video-text-to-text video-to-video
    visual-document-retrieval visual-question-answering voice-activity-detection zero-shot-classification
    zero-shot-image-classification zero-shot-object-detection
    """.split()
) | {CONVERSATIONAL}
"""The tasks a mapping may name: the hub's pipeline tags, and chat."""


async def facts_for(item: Item, catalogue: ModelCatalogue) -> list[ModelFacts]:
    """The facts to keep with the item: its model's, or those of models its tags match that do its task.

    Raises `BadRequest` where the item breaks a rule, and `CatalogueUnavailable` where the
    hub cannot be asked; what it said before counts for ten minutes.
    """
    if item.task not in TASKS:
        raise BadRequest(_unknown_task(item.task))
    if item.hf_model is None:
        return await _matches(item, catalogue)
    facts = await catalogue.get(item.hf_model)
    if facts is None:
        raise BadRequest(
            f"hfModel: the hub has no public model {item.hf_model!r}; check its spelling, capitals included"
        )
    if facts.id != item.hf_model:
        raise BadRequest(f"hfModel: the hub calls {item.hf_model!r} {facts.id!r} now; write that")
    if not facts.serves(item.task):
        raise BadRequest(_mismatch(item.task, facts))
    return [facts]


async def _matches(item: Item, catalogue: ModelCatalogue) -> list[ModelFacts]:
    # Without this tag the filter would cover full models and quantised ones as well, whose
    # whole weights the clients would then ask the provider to load as an adapter.
    if LORA not in (item.tags or ()):
        raise BadRequest(
            f"tags: a filter with adapterType 'lora' needs the tag 'lora' among its tags, else it also covers "
            f"models that are no LoRA adapters; got {list(item.tags or ())}. Add 'lora'"
        )
    found = await catalogue.tagged(item.tags or (), MATCHES_AT_REGISTRATION)
    return [facts for facts in found if facts.serves(item.task)]


def _unknown_task(task: str) -> str:
    near = difflib.get_close_matches(task, sorted(TASKS), n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"one of {', '.join(sorted(TASKS))}"
    return f"task: {task!r} is not a task of the hub; {hint}"


def _mismatch(task: str, facts: ModelFacts) -> str:
    has = f"{facts.id} has the pipeline tag {facts.pipeline_tag!r}"
    if facts.pipeline_tag is None:
        has = f"{facts.id} has no pipeline tag"
    if task == CONVERSATIONAL:
        tagged = "is" if CONVERSATIONAL in facts.tags else "is not"
        return (
            f"task: 'conversational' needs the pipeline tag text-generation or image-text-to-text and the tag "
            f"'conversational'; {has} and {tagged} tagged so"
        )
    also = " or 'conversational'" if facts.serves(CONVERSATIONAL) else ""
    right = f"; register it for {facts.pipeline_tag!r}{also}" if facts.pipeline_tag else ""
    return f"task: expected the model's pipeline tag; {has}, not {task!r}{right}"

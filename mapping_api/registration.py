"""The rules a mapping must meet before it is written (register-as-a-provider, section 3, Validation)."""

from __future__ import annotations

from roadworthy.mapping_api.errors import BadRequest
from roadworthy.mapping_api.model_catalogue import ModelCatalogue
from roadworthy.mapping_api.names import CONVERSATIONAL
from roadworthy.mapping_api.records import Item, ModelFacts


async def facts_for(item: Item, catalogue: ModelCatalogue) -> list[ModelFacts]:
    """The facts to keep with the item: its model's, or those of every model its tags match.

    Raises `BadRequest` where the model does not exist or does another task, and
    `CatalogueUnavailable` where the hub cannot be asked.
    """
    if item.hf_model is None:
        return await catalogue.tagged(item.tags or ())
    facts = await catalogue.get(item.hf_model)
    if facts is None:
        raise BadRequest(f"hfModel: the hub has no model {item.hf_model!r}; check its spelling, capitals included")
    if not facts.serves(item.task):
        raise BadRequest(_mismatch(item.task, facts))
    return [facts]


def _mismatch(task: str, facts: ModelFacts) -> str:
    has = f"{facts.id} has the pipeline tag {facts.pipeline_tag!r}"
    if task == CONVERSATIONAL:
        tagged = "is" if CONVERSATIONAL in facts.tags else "is not"
        return (
            f"task: 'conversational' needs the pipeline tag text-generation or image-text-to-text and the tag "
            f"'conversational'; {has} and {tagged} tagged so"
        )
    return f"task: expected the model's pipeline tag; {has}, not {task!r}"

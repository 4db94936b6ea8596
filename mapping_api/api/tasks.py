"""The tasks, with the models that the clients take where the user names none."""

from __future__ import annotations

import heapq
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from roadworthy.mapping_api.access import PUBLIC
from roadworthy.mapping_api.api.context import PublicView
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.offers import working
from roadworthy.mapping_api.view import View

router = APIRouter(tags=["hub"])

SHOWN = 10
"""Models of each task. The clients read the first."""
_ASKS = "hf-inference"
"""The one provider whose helpers ask for a task's models, so that what it serves comes first."""


class TaskModel(TypedDict):
    """A model, by its id."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    id: str


class Task(TypedDict):
    """One task."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    id: str
    label: str
    models: Annotated[list[TaskModel], Field(description="Where the JavaScript client looks.")]
    widgetModels: Annotated[list[str], Field(description="Where the Python client looks.")]


@router.get("/api/tasks", response_model=dict[str, Task], responses=documented(503))
async def tasks(view: PublicView) -> Response:
    """Each task that a live mapping serves, with up to ten models: hf-inference's first, then the most served."""
    body = view.answer(("tasks",), lambda: orjson.dumps(_tasks(view)), len)
    return Response(body, media_type="application/json")


def _tasks(view: View) -> dict[str, Any]:
    served: dict[str, dict[str, list[int]]] = {}
    for slug in view.of_provider:
        for mapping, ids in working(view, slug, PUBLIC):
            of_task = served.setdefault(mapping.task, {})
            for model_id in ids:
                counts = of_task.setdefault(model_id, [0, 0])
                counts[0] -= slug == _ASKS
                counts[1] -= 1
    shown: dict[str, Any] = {}
    for task in sorted(served):
        of_task = served[task]
        ids = heapq.nsmallest(SHOWN, of_task, key=lambda model_id: (of_task[model_id], model_id))
        if ids:
            shown[task] = {
                "id": task,
                "label": label(task),
                "models": [{"id": model_id} for model_id in ids],
                "widgetModels": ids,
            }
    return shown


def label(task: str) -> str:
    """A task's name for people: "text-to-image" is "Text-to-Image", "fill-mask" is "Fill Mask"."""
    return " ".join(word.capitalize() for word in task.split("-")).replace(" To ", "-to-")

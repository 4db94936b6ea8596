"""What each request cost: the endpoint that the hub's billing polls (registration guide, "HTTP API Specs")."""

from __future__ import annotations

from collections import OrderedDict

from roadworthy.partner.costs import CostRequestError, asked_ids, cost_answer, tokens_of
from roadworthy.sandbox.models import PRICE
from roadworthy.sandbox.routes import Server, route
from roadworthy.sandbox.turn import ApiError, Kind, Stage, Turn

PATH = "/v1/request-costs"
KEPT = 1_000_000
"""Requests whose costs are remembered (some 200 MB); the oldest are forgotten first."""


@route("POST", PATH)
def request_costs(turn: Turn, server: Server) -> None:
    """The cost of each request that is asked for and was served, in nano-USD."""
    try:
        turn.body = {"requestIds": asked_ids(turn.raw)}
    except CostRequestError as error:
        raise ApiError(400, str(error), param="requestIds", code="invalid_value") from None
    turn.kind = Kind.COSTS
    server.mutate(Stage.REQUEST, turn)
    turn.payload = cost_answer(turn.body["requestIds"], remembered(server))


def remembered(server: Server) -> OrderedDict[str, int]:
    """Costs in nano-USD by request id, the oldest first."""
    costs: OrderedDict[str, int] = server.memory.setdefault("costs", OrderedDict())
    return costs


def remember(turn: Turn, server: Server) -> None:
    """Keep what a finished turn cost, under the id that its answer tells; a failed one has no cost.

    A cost that was told may not change any more, so the first answer under an id is the one that counts.
    """
    if turn.status >= 400:
        return
    wanted = server.options.request_id_header.lower()
    told = next((value for name, value in turn.headers.items() if name.lower() == wanted), turn.request_id)
    tokens = tokens_of(turn.usage)
    costs = remembered(server)
    costs.setdefault(told, PRICE.cost_nano_usd(tokens) if tokens else 0)
    while len(costs) > KEPT:
        costs.popitem(last=False)

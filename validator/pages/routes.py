"""The routes of the status page, its JSON, the badges, and the members' list of runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request, Response

from roadworthy.conformance.check import CHECKS
from roadworthy.conformance.facts import VerdictLimits
from roadworthy.database import Database, DatabaseUnavailableError
from roadworthy.mapping_api.api.context import CallerOf, ProviderOf, PublicView, Slug
from roadworthy.mapping_api.api.failures import documented
from roadworthy.mapping_api.errors import BadRequest, NotFound
from roadworthy.mapping_api.names import CONVERSATIONAL, MAPPING_ID
from roadworthy.mapping_api.view import View
from roadworthy.pages import visible
from roadworthy.validator.health import State
from roadworthy.validator.outcome import Result
from roadworthy.validator.pages import badges, drawings, html, shown, telling
from roadworthy.validator.pages.board import Board, Card, Row
from roadworthy.validator.pages.telling import Filter, Teller
from roadworthy.validator.store import history

MAPPINGS_A_PAGE = 50
PROVIDERS_A_PAGE = 100
_LONGEST_WORD = 200
_STREAMED = frozenset({CONVERSATIONAL, "text-generation"})
_CURSOR = r"^[0-9]{1,16}-[0-9a-f]{24}$"

MappingId = Annotated[
    str, Path(pattern=MAPPING_ID, description="The mapping's id.", examples=["64f1c2d3e4a5b6c7d8e9f0a1"])
]
Limit = Annotated[int, Query(ge=1, le=500, description="At most so many.")]
Offset = Annotated[int, Query(ge=0, le=1_000_000, description="How many to leave out at the beginning.")]
Wanted = Annotated[str, Query(max_length=_LONGEST_WORD, description="Only what holds this text.")]
WantedState = Annotated[State | None, Query(description="Only those in this state.")]
Before = Annotated[
    str | None, Query(pattern=_CURSOR, description="Only runs older than that of this cursor; `Link` has the next one.")
]


def router(database: Database) -> APIRouter:
    """Every route, on one database. The application must hold the mapping service: `create_app(service)`."""
    board = Board(database)
    teller = Teller(database, board)
    made = APIRouter()
    _add_pages(made, _Pages(board, teller))
    _add_status(made, board, teller)
    _add_runs(made, database)
    _add_badges(made, board)
    return made


class _MissingError(Exception):
    """There is no such page; the words say what there is not."""


Draw = Callable[[View], Awaitable[bytes]]


class _Pages:
    """The HTML pages."""

    def __init__(self, board: Board, teller: Teller) -> None:
        self._board = board
        self._teller = teller

    async def answer(self, request: Request, draw: Draw) -> Response:
        """Draw a page, kept until the next look at the database; failures are pages, too."""
        root = request.scope.get("root_path", "")
        try:
            service = request.app.state.service
            await service.view.fresh_or_recent(service.settings.stale_reads_s)
            await self._board.look(service.view)
            key = ("page", root, request.url.path, request.url.query, self._board.behind)
            body = self._board.still(key)
            if body is None:
                body = await draw(service.view)
                self._board.keep(key, body)
            status = 200
        except _MissingError as missing:
            status = 404
            body = self._page(request, "notice.html", title="Not found", text=str(missing))
        except DatabaseUnavailableError:
            status = 503
            text = "The database does not answer now, so nothing can be said. Try again in a minute."
            body = self._page(request, "notice.html", title="No answer", text=text)
        headers = {"Content-Security-Policy": html.policy()}
        if status == 503:
            headers["Retry-After"] = "30"
        return Response(body, status, headers, "text/html; charset=utf-8")

    def _page(self, request: Request, template: str, **values: Any) -> bytes:
        return html.page(
            template,
            root=request.scope.get("root_path", ""),
            now_us=self._board.now_us,
            braked_since_us=self._board.braked_since_us,
            behind=self._board.behind,
            **values,
        )

    async def overview(self, request: Request, view: View) -> bytes:
        """All providers; or, where certain mappings are asked for, these."""
        wanted = _filter(request)
        cards = self._board.cards(view)
        found = wanted.providers(cards)
        rows: list[Row] = []
        told = []
        if wanted.of_mappings:
            rows = [row for card in found for row in wanted.rows(card.rows)]
            pager = _Pager(request, len(rows), MAPPINGS_A_PAGE)
            told = await self._teller.told(view, pager.part(rows))
        else:
            pager = _Pager(request, len(found), PROVIDERS_A_PAGE)
        return self._page(
            request,
            "overview.html",
            wanted=wanted,
            tasks=self._tasks(cards),
            providers=cards,
            counts=_summed(cards),
            found=pager.part(found) if not wanted.of_mappings else [],
            told=told,
            pager=pager,
        )

    async def provider(self, request: Request, view: View, slug: str) -> bytes:
        """One provider's mappings."""
        card = self._card(slug)
        wanted = _filter(request)
        rows = wanted.rows(card.rows)
        pager = _Pager(request, len(rows), MAPPINGS_A_PAGE)
        return self._page(
            request,
            "provider.html",
            card=card,
            wanted=wanted,
            tasks=self._tasks([card]),
            told=await self._teller.told(view, pager.part(rows)),
            pager=pager,
        )

    async def mapping(self, request: Request, view: View, slug: str, mapping_id: str) -> bytes:
        """One mapping in full."""
        card = self._card(slug)
        row = _row(card, view, mapping_id)
        if row is None:
            raise _MissingError(f"{card.provider} has no live mapping of this id. It may have been removed.")
        whole = await self._teller.whole(view, row)
        streamed = row.mapping.task in _STREAMED
        now_us = self._board.now_us
        limits = VerdictLimits()
        charts: list[drawings.Chart] = []
        for unit in (drawings.FIRST_TOKEN, drawings.THROUGHPUT):
            for spans, days in ((whole.hours, 7), (whole.days, 30)):
                chart = drawings.chart(
                    unit,
                    spans,
                    since_us=now_us - days * drawings.DAY_US,
                    now_us=now_us,
                    limit=limits.time_to_first_token_s if unit.seconds else None,
                    id=f"chart-{len(charts)}",
                )
                if chart is not None:
                    charts.append(chart)
        failure = whole.failure
        findings = [telling.finding_of(each) for each in failure.findings] if failure is not None else []
        base = f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}"
        return self._page(
            request,
            "mapping.html",
            card=card,
            whole=whole,
            told=whole.told,
            charts=charts,
            streamed=streamed,
            limit_s=limits.time_to_first_token_s if streamed else limits.total_time_s,
            runs=[(run.ended_at_us, telling.run_shown(run)) for run in whole.runs],
            failure=telling.failed_shown(failure) if failure is not None else None,
            failed_at_us=failure.run.ended_at_us if failure is not None else None,
            # Those that decide come first.
            findings=sorted(findings, key=lambda each: each.level != "MUST"),
            base=base,
        )

    async def check(self, request: Request, check_id: str) -> bytes:
        """What `roadworthy explain` says of a check."""
        check = CHECKS.get(check_id)
        if check is None:
            raise _MissingError("There is no check of this name; `roadworthy checks` lists them.")
        return self._page(request, "check.html", check=check)

    def _card(self, slug: str) -> Card:
        card = self._board.card(slug)
        if card is None:
            raise _MissingError(f"There is no provider {visible(slug[:64])} here.")
        return card

    def _tasks(self, cards: list[Card]) -> list[str]:
        key = ("tasks", cards[0].provider if len(cards) == 1 else "")
        tasks: list[str] = self._board.kept(
            key, lambda: sorted({row.mapping.task for card in cards for row in card.rows})
        )
        return tasks


class _Pager:
    """A page of a list: which, of how many, and the links around it."""

    def __init__(self, request: Request, total: int, size: int) -> None:
        self.total = total
        self.pages = max(1, -(-total // size))
        self._size = size
        asked = request.query_params.get("page", "1")
        number = int(asked) if re.fullmatch(r"[0-9]{1,6}", asked) else 1
        self.number = min(max(number, 1), self.pages)
        self._query = [(name, value) for name, value in request.query_params.multi_items() if name in _FIELDS and value]

    @property
    def first(self) -> int:
        """The place of the page's first entry, counted from one."""
        return (self.number - 1) * self._size + 1

    @property
    def last(self) -> int:
        """The place of its last one."""
        return min(self.total, self.number * self._size)

    def part(self, entries: list[Any]) -> list[Any]:
        """The page's entries."""
        return entries[self.first - 1 : self.last]

    def link(self, number: int) -> str:
        """The query that leads to another page."""
        return "?" + urlencode([*self._query, ("page", str(number))])


_FIELDS = ("provider", "model", "task", "state")


def _filter(request: Request) -> Filter:
    """What the form asks for. A page answers whatever comes: what it does not know asks for nothing."""
    given = {name: request.query_params.get(name, "").strip()[:_LONGEST_WORD] for name in _FIELDS}
    state = State(given["state"]) if given["state"] in frozenset(State) else None
    return Filter(given["provider"], given["model"], given["task"], state)


def _summed(cards: list[Card]) -> dict[State, int]:
    return {state: count for state in State if (count := sum(card.counts.get(state, 0) for card in cards))}


def _row(card: Card, view: View, mapping_id: str) -> Row | None:
    """A mapping that everybody may see; None for one that is gone, staged, or another provider's."""
    mapping = view.mappings.get(mapping_id)
    if mapping is None or mapping.status != "live" or mapping.provider != card.provider:
        return None
    return next((row for row in card.rows if row.mapping.id == mapping_id), Row(mapping, State.UNKNOWN, None))


def _add_pages(made: APIRouter, pages: _Pages) -> None:
    @made.get("/status", include_in_schema=False)
    async def overview(request: Request) -> Response:
        """All providers."""
        return await pages.answer(request, lambda view: pages.overview(request, view))

    @made.get("/status/{provider}", include_in_schema=False)
    async def of_provider(request: Request, provider: str) -> Response:
        """One provider."""
        return await pages.answer(request, lambda view: pages.provider(request, view, provider))

    @made.get("/status/{provider}/{mapping_id}", include_in_schema=False)
    async def of_mapping(request: Request, provider: str, mapping_id: str) -> Response:
        """One mapping."""
        return await pages.answer(request, lambda view: pages.mapping(request, view, provider, mapping_id))

    @made.get("/checks/{check_id}", include_in_schema=False)
    async def of_check(request: Request, check_id: str) -> Response:
        """One check, explained."""
        return await pages.answer(request, lambda _view: pages.check(request, check_id))


def _json(body: str) -> Response:
    return Response(body, media_type="application/json")


def _next(response: Response, request: Request, total: int, limit: int, offset: int) -> Response:
    """Link to the next page, where there is one."""
    if offset + limit < total:
        url = request.url.include_query_params(limit=limit, offset=offset + limit)
        response.headers["Link"] = f'<{url}>; rel="next"'
    return response


def _add_status(made: APIRouter, board: Board, teller: Teller) -> None:
    @made.get("/api/status", response_model=shown.Overview, tags=["status"], responses=documented(400, 503))
    async def overview(
        request: Request, view: PublicView, provider: Wanted = "", limit: Limit = 100, offset: Offset = 0
    ) -> Response:
        """How all providers do, those with trouble first. The next page is in `Link`."""
        await board.look(view)

        def make() -> tuple[str, int]:
            found = Filter(provider).providers(board.cards(view))
            page = shown.Overview(
                at=shown.at(board.now_us),
                braked_since=shown.at_or_none(board.braked_since_us),
                providers=[telling.card_shown(card) for card in found[offset : offset + limit]],
                total=len(found),
            )
            return page.model_dump_json(by_alias=True), len(found)

        body, total = board.kept(("api", provider, limit, offset), make)
        return _next(_json(body), request, total, limit, offset)

    @made.get(
        "/api/status/{provider}",
        response_model=shown.ProviderPage,
        tags=["status"],
        responses=documented(400, 404, 503),
    )
    async def of_provider(
        *,
        provider: Slug,
        request: Request,
        view: PublicView,
        model: Wanted = "",
        task: Wanted = "",
        state: WantedState = None,
        limit: Limit = 50,
        offset: Offset = 0,
    ) -> Response:
        """How a provider's live mappings do, those with trouble first. The next page is in `Link`."""
        card = await _known(board, view, provider)
        rows = Filter("", model, task, state).rows(card.rows)
        told = await teller.told(view, rows[offset : offset + limit])
        page = shown.ProviderPage(
            at=shown.at(board.now_us),
            braked_since=shown.at_or_none(board.braked_since_us),
            provider=telling.card_shown(card),
            mappings=[telling.told_shown(each) for each in told],
            total=len(rows),
        )
        return _next(_json(page.model_dump_json(by_alias=True)), request, len(rows), limit, offset)

    @made.get(
        "/api/status/{provider}/{mapping_id}",
        response_model=shown.MappingPage,
        tags=["status"],
        responses=documented(400, 404, 503),
    )
    async def of_mapping(provider: Slug, mapping_id: MappingId, view: PublicView) -> Response:
        """How one live mapping does: its last 30 days, runs and failure."""
        card = await _known(board, view, provider)
        row = _row(card, view, mapping_id)
        if row is None:
            raise NotFound(f"{provider} has no live mapping {mapping_id}; /api/status/{provider} lists them")
        whole = await teller.whole(view, row)
        page = telling.whole_shown(whole, board.now_us, board.braked_since_us)
        return _json(page.model_dump_json(by_alias=True))


async def _known(board: Board, view: View, provider: str) -> Card:
    await board.look(view)
    card = board.card(provider)
    if card is None:
        raise NotFound(f"there is no provider {provider!r}; /api/status lists them")
    return card


def _add_runs(made: APIRouter, database: Database) -> None:
    @made.get(
        "/api/partners/{provider}/validations",
        response_model=list[shown.MemberRun],
        tags=["status"],
        responses=documented(400, 401, 403, 404, 503),
    )
    async def validations(
        *,
        provider: ProviderOf,
        caller: CallerOf,
        request: Request,
        limit: Limit = 100,
        before: Before = None,
        result: Annotated[Result | None, Query(description="Only runs with this result.")] = None,
    ) -> Response:
        """Every test of the provider's mappings, staging ones too, the newest first. The next page is in `Link`."""
        caller.require(provider, "read")
        async with database.reading() as connection:
            runs = await history.provider_runs(
                connection, provider.slug, before=_cursor(before), limit=limit + 1, result=result
            )
        body = ",".join(telling.member_shown(run).model_dump_json(by_alias=True) for run in runs[:limit])
        response = _json(f"[{body}]")
        if len(runs) > limit:
            last = runs[limit - 1].run
            url = request.url.include_query_params(limit=limit, before=f"{last.ended_at_us}-{last.id}")
            response.headers["Link"] = f'<{url}>; rel="next"'
        return response


def _cursor(before: str | None) -> tuple[int, str] | None:
    if before is None:
        return None
    at_us, _, run_id = before.partition("-")
    if not run_id:
        raise BadRequest("before: expected a cursor from a Link header")
    return int(at_us), run_id


def _add_badges(made: APIRouter, board: Board) -> None:
    @made.get("/badge/{provider}.svg", include_in_schema=False)
    async def of_provider(provider: str, request: Request, view: PublicView) -> Response:
        """A provider's state."""
        await board.look(view)
        card = board.card(provider)
        return _badge(request, card.provider if card else None, card.state if card else State.UNKNOWN)

    @made.get("/badge/{provider}/{mapping_id}.svg", include_in_schema=False)
    async def of_mapping(provider: str, mapping_id: str, request: Request, view: PublicView) -> Response:
        """A mapping's state."""
        await board.look(view)
        card = board.card(provider)
        row = _row(card, view, mapping_id) if card is not None else None
        if row is None:
            return _badge(request, None, State.UNKNOWN)
        return _badge(request, f"{provider}: {row.mapping.source}", row.state)


def _badge(request: Request, label: str | None, state: State) -> Response:
    """The badge; one of an unknown name is grey, says so, and is not found."""
    drawn = badges.badge(label or "roadworthy", state, "" if label else "not found")
    etag = f'"{hashlib.sha256(drawn.encode()).hexdigest()[:32]}"'
    headers = {
        "ETag": etag,
        "Cache-Control": "max-age=60",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    }
    given = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if label is not None and (etag in given or "*" in given):
        return Response(status_code=304, headers=headers)
    return Response(drawn, 200 if label is not None else 404, headers, "image/svg+xml")

"""Checks of labels and scores: ranges, order, and the parameters that choose among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import isclose

from roadworthy.conformance.exchange import Exchange, as_object
from roadworthy.conformance.probes import task as probes
from roadworthy.conformance.reading.task import lists, results, rule, scores, sent_inputs, sent_parameters
from roadworthy.conformance.verdict import Finding, Level, NotApplicable, Outcome
from roadworthy.conformance.words import is_integer, is_number, show

TASK_API = "task API, response"
EPSILON = 1e-6
ROUNDING = 1e-3
"""Half precision and float32 sums overshoot 1 by so much."""
CERTAIN = 0.99
SUM_TOLERANCE = 0.02
"""Scores are often rounded to a few digits before they are sent."""


@rule(
    "scores.range",
    source=f"{TASK_API}: score is a probability",
    remedy="Send probabilities (softmax or sigmoid), not logits or percent.",
    each=probes.ANSWERS,
)
def scores_range(exchange: Exchange) -> Iterator[Finding]:
    """Every score lies between 0 and 1.

    Callers compare it with thresholds, and pages show it as a bar.
    """
    wrong = [score for score in scores(results(exchange)) if not -ROUNDING <= score <= 1 + ROUNDING]
    if wrong:
        yield Finding("scores from 0 to 1", show(wrong[0]), at="score")


@rule(
    "scores.sorted",
    source=f"{TASK_API}: the best first",
    remedy="Sort by descending score before you cut to top_k.",
    each=probes.ANSWERS,
)
def scores_sorted(exchange: Exchange) -> Iterator[Finding]:
    """The results of an input come in order of their scores, the best first.

    Nearly every caller takes the first one as the answer.
    """
    for items in lists(exchange):
        found = scores(items)
        if any(later > earlier + EPSILON for earlier, later in pairwise(found)):
            yield Finding("descending scores", show(found), at="score")
            return


@rule(
    "top_k",
    source="task API, parameters: top_k",
    remedy="Cut the sorted results to top_k.",
    each=[probes.options, probes.more],
)
def top_k(exchange: Exchange) -> Iterator[Outcome]:
    """No more results come than top_k asks for, and at least one.

    Whoever asks for two and gets a thousand labels pays for the transfer, or shows them all.
    """
    most = sent_parameters(exchange).get("top_k")
    if not is_integer(most):
        yield NotApplicable("this example sets no top_k")
        return
    for items in lists(exchange):
        if not 0 < len(items) <= most:
            yield Finding(f"1 to {most} results", str(len(items)), at="body")
            return


@rule(
    "batch",
    source="task API, request: several inputs at once",
    remedy="Answer an array of inputs with an array of as many results, in the same order.",
    each=probes.batch,
)
def batch(exchange: Exchange) -> Iterator[Finding]:
    """A batch of inputs gets one result for each.

    Callers pair inputs and results by position; one too few shifts all the rest.
    """
    sent, got = sent_inputs(exchange), exchange.json
    count = len(got) if isinstance(got, list) else 1
    if isinstance(sent, list) and count != len(sent):
        yield Finding(f"{len(sent)} results", f"{count}", at="body")


@rule(
    "threshold",
    source="task API, parameters: threshold",
    remedy="Leave out what scores below the threshold.",
    each=probes.options,
)
def threshold(exchange: Exchange) -> Iterator[Finding]:
    """No result scores below the threshold that was asked for.

    The threshold is how a caller keeps guesses out.
    """
    least = sent_parameters(exchange).get("threshold")
    wrong = [score for score in scores(results(exchange)) if is_number(least) and score < least - EPSILON]
    if wrong:
        yield Finding(f"scores of {least} and above", show(wrong[0]), at="score")


def _candidates(exchange: Exchange) -> list[object]:
    sent = sent_parameters(exchange).get("candidate_labels")
    return sent if isinstance(sent, list) else []


@rule(
    "labels.all",
    source="task API, parameters: candidate_labels",
    remedy="Score every candidate label once, spelt as it was sent.",
    each=(probes.plain, probes.options, probes.more),
)
def labels_all(exchange: Exchange) -> Iterator[Finding]:
    """The labels are those of the request, each of them once.

    Callers look their own labels up in the answer.
    """
    sent = [str(label) for label in _candidates(exchange)]
    got = [str(item.get("label")) for item in results(exchange)]
    if sorted(sent) != sorted(got):
        yield Finding(show(sorted(sent)), show(sorted(got)), at="label")


@rule(
    "labels.known",
    source="task API, parameters: candidate_labels",
    remedy="Detect only what was asked for, and spell the labels as they were sent.",
    each=(probes.plain, probes.options, probes.more),
)
def labels_known(exchange: Exchange) -> Iterator[Finding]:
    """No label comes that was not among the candidates.

    Callers look the labels up among their own, and fail on a stranger.
    """
    strange = [item.get("label") for item in results(exchange) if item.get("label") not in _candidates(exchange)]
    if strange:
        yield Finding(f"one of {show(_candidates(exchange))}", show(strange[0]), at="label")


@rule(
    "labels.sum",
    source="task API, parameters: multi_label",
    remedy="Normalise the scores over the candidate labels where multi_label is not set.",
    each=(probes.plain, probes.options),
)
def labels_sum(exchange: Exchange) -> Iterator[Finding]:
    """The scores of labels that exclude each other add up to 1.

    They are documented as the likelihoods of one choice.
    """
    total = sum(scores(results(exchange)))
    if not isclose(total, 1, abs_tol=SUM_TOLERANCE):
        yield Finding("scores that add up to 1", f"{total:.4f}", at="score")


@rule(
    "labels.multi",
    source="task API, parameters: multi_label",
    remedy="With multi_label, score each label by itself (a sigmoid), not against the others.",
    joint=[probes.options, probes.more],
)
def labels_multi(single: Exchange, multi: Exchange) -> Iterator[Outcome]:
    """With multi_label each label is scored by itself.

    A server that ignores the parameter tells that of two true labels each is half true.
    """
    alone, together = _by_label(single), _by_label(multi)
    if max(alone.values(), default=0) >= CERTAIN:
        yield NotApplicable("the model is certain of one label, so both ways may come to the same")
        return
    if len(alone) > 1 and alone.keys() == together.keys():
        same = all(isclose(alone[label], together[label], abs_tol=EPSILON) for label in alone)
        if same:
            got = f"the very scores of the request without it: {show(together)}"
            yield Finding("scores that do not exclude each other", got, at="score")


def _by_label(exchange: Exchange) -> dict[str, float]:
    return {str(item.get("label")): item["score"] for item in results(exchange) if is_number(item.get("score"))}


@rule(
    "ranking",
    source="text ranking, response: index and score",
    remedy="Give each text one entry with its place in the request, the best first.",
    each=(probes.plain, probes.options),
)
def ranking(exchange: Exchange) -> Iterator[Finding]:
    """A ranking names every text once by its place, the best first.

    Callers reorder their own texts by these places; a wrong one shows the wrong text.
    """
    sent = as_object(exchange.sent).get("texts")
    texts: Sequence[object] = sent if isinstance(sent, list) else []
    items = results(exchange)
    places = [item.get("index") for item in items]
    if sorted(map(str, places)) != sorted(map(str, range(len(texts)))):
        yield Finding(f"each place from 0 to {len(texts) - 1} once", show(places), at="index")
        return
    found = scores(items)
    if any(later > earlier + EPSILON for earlier, later in pairwise(found)):
        yield Finding("descending scores", show(found), at="score")
    for item in items:
        place = item["index"]
        if isinstance(item.get("text"), str) and is_integer(place) and item["text"] != texts[place]:
            yield Finding(show(texts[place]), show(item["text"]), at=f"text of index {place}")
            return


@rule(
    "table.rows",
    source="task API, tabular data: one prediction for each row",
    remedy="Answer with one prediction for each row, in the order of the rows.",
    each=(probes.plain, probes.options),
)
def table_rows(exchange: Exchange) -> Iterator[Finding]:
    """Every row of the table gets one prediction.

    Callers write them back beside their rows.
    """
    columns = as_object(as_object(sent_inputs(exchange)).get("data")).values()
    rows = max((len(column) for column in columns if isinstance(column, list)), default=0)
    got = len(exchange.json) if isinstance(exchange.json, list) else 1
    if got != rows:
        yield Finding(f"{rows} predictions", str(got), at="body")


@rule(
    "table.cells",
    source="task API, table question answering: coordinates and cells",
    remedy="Count rows and columns from 0, and give the cells' contents in the order of their coordinates.",
    each=(probes.plain, probes.options),
    level=Level.MUST,
)
def table_cells(exchange: Exchange) -> Iterator[Finding]:
    """The cells of an answer are those at its coordinates in the table.

    Callers mark the cells in their own table.
    """
    table = as_object(as_object(sent_inputs(exchange)).get("table"))
    columns = [column for column in table.values() if isinstance(column, list)]
    for item in results(exchange):
        places, cells = item.get("coordinates"), item.get("cells")
        if not isinstance(places, list) or not isinstance(cells, list):
            continue
        if len(places) != len(cells):
            yield Finding(f"{len(places)} cells for as many coordinates", str(len(cells)), at="cells")
            return
        for place, cell in zip(places, cells, strict=True):
            found = _cell(columns, place)
            if found is None:
                yield Finding("a row and a column of the table", show(place), at="coordinates")
                return
            if found != cell:
                yield Finding(f"{show(found)}, as the table has at {show(place)}", show(cell), at="cells")
                return


def _cell(columns: list[list[object]], place: object) -> object | None:
    if not isinstance(place, list) or len(place) != 2 or not all(is_integer(part) for part in place):
        return None
    row, column = place
    inside = 0 <= column < len(columns) and 0 <= row < len(columns[column])
    return columns[column][row] if inside else None

"""Reconciliation, from served requests to classes: a month that fits has no variance, and each fault has its class."""

from __future__ import annotations

import csv
from collections import Counter

import pytest
import sqlalchemy as sa
from costs import reply, served, take_in, unguarded
from reconciling import (
    HOUR_US,
    NOVEMBER_US,
    OCTOBER_US,
    expected,
    invoice_of,
    month,
    record,
    settle,
    version,
)

from roadworthy.billing.collector import Collector
from roadworthy.billing.reconcile.compare import compare
from roadworthy.billing.reconcile.invoice import Invoice
from roadworthy.billing.reconcile.outcome import Terms
from roadworthy.billing.reconcile.variance import OF_INVOICES, OF_PRICES, Kind
from roadworthy.billing.reconcile.watch import LedgerWatch
from roadworthy.billing.reconcile.whole import look
from roadworthy.billing.store.corrections import correct
from roadworthy.billing.tables import usage
from roadworthy.database import Database
from roadworthy.sealing import Sealer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(database_url):
    opened = Database(database_url)
    yield opened
    await opened.close()


class Found(list):
    """Every variance that came."""

    def ids(self, kind):
        return [one.request_id for one in self if one.kind is kind]


async def reconcile(database, *, invoice=None, names=None, **terms):
    found = Found()
    async with database.reading() as connection:
        now_us = await database.now_us(connection)
        wanted = Terms("acme", OCTOBER_US, NOVEMBER_US, **({"page_rows": 7} | terms))
        outcome = await compare(connection, now_us, wanted, invoice=invoice, names=names, sink=found.append)
    assert Counter(one.kind for one in found) == {kind: each.count for kind, each in outcome.classes.items()}
    return outcome, found


def explains_itself(outcome, invoice=None):
    """The classes' amounts are the whole of what the sums differ by."""

    def of(kinds):
        return sum(each.amount_nano_usd for kind, each in outcome.classes.items() if kind in kinds)

    total = outcome.total
    assert total.settled_nano_usd - outcome.unpriced_settled_nano_usd - total.expected_nano_usd == of(OF_PRICES)
    if invoice is not None:
        assert invoice.totals.nano_usd - total.settled_nano_usd == of(OF_INVOICES - {Kind.INVOICE_SUM})


async def test_a_month_that_fits_has_no_variance(database, tmp_path):
    requests = month()
    costs = expected(requests)
    await record(database)
    await settle(database, requests, costs)
    with Invoice(invoice_of(tmp_path / "invoice.csv", costs)) as invoice:
        outcome, found = await reconcile(database, invoice=invoice)
        explains_itself(outcome, invoice)
    assert found == []
    assert outcome.verdict == "within"
    assert outcome.total.settled_nano_usd == outcome.total.expected_nano_usd == sum(costs.values())
    assert outcome.total.invoiced_nano_usd == invoice.totals.nano_usd == sum(costs.values())
    assert (outcome.served, outcome.charges, outcome.states["settled"]) == (40, 40, 40)


# What a provider charges for r010 instead of its price, by the class that it belongs to.
FAULTS = {
    Kind.OVERCHARGED: lambda cost: cost + 1001,
    Kind.UNDERCHARGED: lambda cost: cost - 1001,
    Kind.ROUNDING: lambda cost: cost + 1000,
    Kind.ZERO_PRICED: lambda cost: 0,
}


@pytest.mark.parametrize("kind", FAULTS, ids=str)
async def test_a_wrong_cost_is_found_by_its_id(database, kind):
    requests = month()
    costs = expected(requests)
    right, wrong = costs["r010"], FAULTS[kind](costs["r010"])
    await record(database)
    await settle(database, requests, costs | {"r010": wrong})
    outcome, found = await reconcile(database)
    assert found.ids(kind) == ["r010"]
    (one,) = found
    assert (one.expected_nano_usd, one.settled_nano_usd, one.amount_nano_usd) == (right, wrong, wrong - right)
    assert outcome.verdict == ("within" if kind is Kind.ROUNDING else "beyond")
    explains_itself(outcome)


CHEAP = {
    # What each of 40 requests of 124 nano-USD is charged instead, and whether that counts.
    "a multiple of each": ([1000] * 40, True),
    "nothing of each": ([0] * 40, False),  # 4,960 in all: chance may do that
    "nothing of a few": ([0, 124] * 20, False),
    "both sides alike": ([0, 248] * 20, False),
}


@pytest.mark.parametrize("charged", CHEAP)
async def test_rounding_that_is_one_sided_and_dear_counts(database, charged, tmp_path):
    amounts, counts = CHEAP[charged]
    told = {"model": "owner/small", "input_tokens": 1000, "cached_input_tokens": 0, "output_tokens": 0}
    requests = {id: each | told | {"other_units": None} for id, each in month().items()}
    assert set(expected(requests).values()) == {123_457}
    # A thousandth of the price: the same requests cost 124.
    await record(
        database, [version("owner/small", "input_tokens", 123_457), version("owner/small", "output_tokens", 1)]
    )
    costs = dict(zip(requests, amounts, strict=True))
    await settle(database, requests, costs)
    outcome, found = await reconcile(database)
    explains_itself(outcome)
    assert {one.kind for one in found} == {Kind.ROUNDING}
    assert outcome.counts(Kind.ROUNDING) is counts
    assert (outcome.verdict, outcome.size_nano_usd) == (("beyond", 40 * 876) if counts else ("within", 0))
    within, _ = await reconcile(database, tolerance_nano_usd=40 * 876)
    assert within.verdict == "within"
    lines = {id: cost + 900 for id, cost in costs.items()}
    with Invoice(invoice_of(tmp_path / "invoice.csv", lines)) as invoice:
        outcome, _ = await reconcile(database, invoice=invoice)
        explains_itself(outcome, invoice)
    assert outcome.counts(Kind.INVOICE_ROUNDING)


async def test_a_cheap_request_that_costs_nothing_is_rounding(database):
    requests = month(2)
    requests["r001"] |= {"input_tokens": 3, "output_tokens": 0, "other_units": None}
    costs = expected(requests)
    assert costs["r001"] == 371
    await record(database)
    await settle(database, requests, costs | {"r001": 0})
    outcome, found = await reconcile(database)
    assert [(one.kind, one.request_id) for one in found] == [(Kind.ROUNDING, "r001")]
    assert outcome.verdict == "within"


async def test_a_cost_of_another_time_is_a_changed_price(database):
    requests = month()
    costs = expected(requests)
    late = expected({"r038": requests["r038"] | {"served_at_us": OCTOBER_US}})
    assert late["r038"] != costs["r038"]
    await record(database)
    await settle(database, requests, costs | late)
    _, found = await reconcile(database)
    assert [(one.kind, one.request_id, one.detail) for one in found] == [
        (Kind.PRICE_CHANGED, "r038", "the price from 1970-01-01T00:00:00Z on")
    ]


async def test_cached_tokens_that_are_charged_twice_are_said_so(database):
    requests = month()
    costs = expected(requests)
    await record(database)
    # Two USD for each of a million plain ones: 380 cached ones of r038 are charged in full, and as cached.
    await settle(database, requests, costs | {"r038": costs["r038"] + 380 * 2000})
    _, found = await reconcile(database)
    assert [(one.kind, one.request_id, one.detail) for one in found] == [
        (Kind.OVERCHARGED, "r038", "as if cached tokens were charged twice")
    ]


async def test_pending_expired_disputed_and_unpriced_are_classes_of_their_own(database):
    requests = month()
    requests["r004"]["model"] = "owner/unheard-of"
    costs = expected(month())
    for id in ("r001", "r002", "r003"):
        del costs[id]
    await record(database)
    await settle(database, requests, costs)
    provider = type("Conflicting", (), {"send": None, "aclose": None})()

    async def send(request, limits):
        return reply({"requests": [{"requestId": "r003", "costNanoUsd": 1}, {"requestId": "r003", "costNanoUsd": 2}]})

    provider.send = send
    async with database.writing() as connection:
        await connection.execute(sa.update(usage).where(usage.c.request_id == "r001").values(received_at_us=0))
        await connection.execute(sa.update(usage).where(usage.c.request_id == "r002").values(state="expired"))
        await connection.execute(sa.update(usage).where(usage.c.request_id == "r003").values(next_ask_us=0))
        await connection.execute(sa.text("UPDATE cost_endpoints SET next_turn_us = 0"))
    collector = Collector(database, Sealer(None), provider)
    await collector.tick()
    await collector.idle()
    right = expected(month())
    outcome, found = await reconcile(database)
    assert {one.kind: (one.request_id, one.amount_nano_usd) for one in found} == {
        Kind.MISSING: ("r001", -right["r001"]),
        Kind.EXPIRED: ("r002", -right["r002"]),
        Kind.DISPUTED: ("r003", -right["r003"]),
        Kind.UNPRICED: ("r004", None),
    }
    assert len(found) == 4
    assert outcome.verdict == "beyond"
    explains_itself(outcome)
    within, _ = await reconcile(database, tolerance_nano_usd=10**12)
    assert within.verdict == "undecided"


async def test_a_pending_request_that_is_young_is_no_variance(database):
    requests = month()
    costs = expected(requests)
    del costs["r001"]
    await record(database)
    await settle(database, requests, costs)
    outcome, found = await reconcile(database)
    assert (found, outcome.waiting, outcome.verdict) == ([], 1, "within")
    explains_itself(outcome)


async def test_each_fault_of_an_invoice_is_found_with_exactly_its_ids(database, tmp_path):
    requests = month()
    costs = expected(requests)
    await record(database)
    await settle(database, requests, costs)
    september = {"served_at_us": OCTOBER_US - HOUR_US, "input_tokens": 10, "model": "owner/chat"}
    await take_in(
        database,
        served("r-september", **september),
        served("r-failed", served_at_us=OCTOBER_US, status=500),
        served("r000", provider="other", served_at_us=OCTOBER_US),
    )
    lines = costs | {
        "r005": costs["r005"] + 5000,
        "r006": costs["r006"] - 999,
        "r-september": 77,
        "r-failed": 88,
        "r-made-up": 99,
    }
    del lines["r007"]
    double = [f"r008,{costs['r008']}", f"r008,{costs['r008']}", "r-made-up,1"]
    # A charge, its credit and the charge that is right are three lines, and no double.
    corrected = [f"r009,-{costs['r009']}", f"r009,{costs['r009']}"]
    with Invoice(invoice_of(tmp_path / "invoice.csv", lines, *double, *corrected)) as invoice:
        outcome, found = await reconcile(database, invoice=invoice)
        explains_itself(outcome, invoice)
    assert {one.kind: (one.request_id, one.amount_nano_usd) for one in found if one.kind is not Kind.DOUBLE} == {
        Kind.INVOICE_DIFFERS: ("r005", 5000),
        Kind.INVOICE_ROUNDING: ("r006", -999),
        Kind.NOT_INVOICED: ("r007", -costs["r007"]),
        Kind.LATE: ("r-september", 77),
        Kind.FAILED_CHARGED: ("r-failed", 88),
        Kind.UNKNOWN: ("r-made-up", 99),
    }
    assert [(one.request_id, one.amount_nano_usd) for one in found if one.kind is Kind.DOUBLE] == [
        ("r008", 2 * costs["r008"]),
        ("r-made-up", 1),
    ]
    assert len(found) == 8
    assert outcome.verdict == "beyond"


async def test_lines_of_an_invoice_that_come_to_what_is_posted_are_no_variance(database, tmp_path):
    requests = month()
    costs = expected(requests)
    await record(database)
    await settle(database, requests, costs | {"r020": 0})
    september = {"served_at_us": OCTOBER_US - HOUR_US, "input_tokens": 10, "model": "owner/chat"}
    await take_in(
        database,
        served("r-september", **september),
        served("r-failed", served_at_us=OCTOBER_US, status=500),
    )
    lines = {id: cost for id, cost in costs.items() if id != "r001"} | {"r-made-up": 500, "r-september": 70}
    charge = costs["r020"]
    back = [f"r020,-{charge}", "r-made-up,-500", "r-september,-70", "r-failed,33", "r-failed,-33"]
    halves = [f"r001,{costs['r001'] - 400}", "r001,400"]
    with Invoice(invoice_of(tmp_path / "invoice.csv", lines, *back, *halves)) as invoice:
        outcome, found = await reconcile(database, invoice=invoice)
        explains_itself(outcome, invoice)
    # Only that r020 costs nothing is told, which is of the prices.
    assert [(one.kind, one.request_id) for one in found] == [(Kind.ZERO_PRICED, "r020")]


async def test_a_credit_counts_once_and_with_its_charge(database, tmp_path):
    requests = month()
    costs = expected(requests)
    await record(database)
    await settle(database, requests, costs)
    more = [f"r010,-{costs['r010'] - 3000}", f"r011,-{costs['r011']}", "r-made-up,500", "r-made-up,-499"]
    with Invoice(invoice_of(tmp_path / "invoice.csv", costs, *more)) as invoice:
        outcome, found = await reconcile(database, invoice=invoice)
        explains_itself(outcome, invoice)
    assert {one.request_id: (one.kind, one.amount_nano_usd) for one in found} == {
        "r010": (Kind.INVOICE_DIFFERS, 3000 - costs["r010"]),
        "r011": (Kind.INVOICE_DIFFERS, -costs["r011"]),
        "r-made-up": (Kind.UNKNOWN, 1),
    }
    assert len(found) == 3


async def test_an_invoice_of_totals_is_compared_by_day_and_model(database, tmp_path):
    requests = month()
    costs = expected(requests)
    await record(database)
    await settle(database, requests, costs)
    outcome, _ = await reconcile(database)
    rows = [
        (day, {"owner/chat": "chat-v1"}.get(model, model), sums.settled_nano_usd)
        for (day, model), sums in outcome.groups.items()
    ]
    path = tmp_path / "totals.csv"

    def write(rows):
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter=";")
            writer.writerow(["Date", "Model", "Cost (nano USD)"])
            for day, model, cost in rows:
                writer.writerow([f"2026-10-{day - OCTOBER_US // (24 * HOUR_US) + 1:02d}", model, cost])

    def read():
        return Invoice(path, columns={"cost_nano_usd": "Cost (nano USD)"})

    write(rows)
    with read() as invoice:
        _, found = await reconcile(database, invoice=invoice, names={"chat-v1": ["owner/chat"]})
    assert found == []
    day, model, cost = rows[3]
    write([*rows[:3], (day, model, cost + 1001), *rows[4:-1]])
    with read() as invoice:
        outcome, found = await reconcile(database, invoice=invoice, names={"chat-v1": ["owner/chat"]})
        explains_itself(outcome, invoice)
    assert [one.kind for one in found] == [Kind.TOTAL_DIFFERS] * 2
    assert sorted(one.amount_nano_usd for one in found) == sorted([1001, -rows[-1][2]])


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"v1": ["owner/chat", "owner/small"]}, {"v1": {"owner/chat", "owner/small"}}),
        ({"owner/chat": ["owner/chat", "owner/small"]}, {"owner/chat": {"owner/chat", "owner/small"}}),
        ({"v1": ["owner/chat", "owner/small"], "v2": ["owner/small"]}, {"v1": {"owner/chat"}, "v2": {"owner/small"}}),
        ({"v1": ["owner/chat", "owner/small"]}, {"owner/chat": {"owner/chat"}, "owner/small": {"owner/small"}}),
        ({"v1": ["owner/small"], "v2": ["v1"]}, {"v1": {"owner/small"}, "v2": set(), "owner/chat": {"owner/chat"}}),
        ({"owner/chat": ["owner/other"]}, {"owner/chat": {"owner/chat"}, "owner/small": {"owner/small"}}),
    ],
    ids=["one for two", "by the name of one", "that overlap", "not used", "a name that is another's", "ours first"],
)
async def test_a_provider_model_of_several_hub_models_is_their_sum(database, tmp_path, names, told):
    requests = month()
    costs = expected(requests)
    await record(database)
    await settle(database, requests, costs)
    path = tmp_path / "totals.csv"
    sums = {name: sum(costs[id] for id in costs if requests[id]["model"] in of) for name, of in told.items()}

    async def found_in(rows):
        path.write_text("\n".join(["model,cost_nano_usd", *(f"{name},{cost}" for name, cost in rows.items())]) + "\n")
        with Invoice(path) as invoice:
            outcome, found = await reconcile(database, invoice=invoice, names=names)
            explains_itself(outcome, invoice)
        return [(one.kind, one.amount_nano_usd) for one in found]

    assert await found_in(sums) == []
    name = min(sums, key=lambda name: name != "owner/chat")
    assert await found_in(sums | {name: sums[name] + 100_000}) == [(Kind.TOTAL_DIFFERS, 100_000)]


async def test_the_verdict_follows_tolerance_and_share(database):
    requests = month()
    costs = expected(requests)
    await record(database)
    await settle(database, requests, costs | {"r010": costs["r010"] + 5000})
    for terms, verdict in (
        ({"tolerance_nano_usd": 4999}, "beyond"),
        ({"tolerance_nano_usd": 5000}, "within"),
        ({"tolerance_percent": 50}, "within"),
        ({"rounding_nano_usd": 5000}, "within"),
    ):
        outcome, _ = await reconcile(database, **terms)
        assert outcome.verdict == verdict


async def test_without_prices_nothing_is_decided_and_without_requests_neither(database):
    outcome, _ = await reconcile(database)
    assert outcome.verdict == "undecided"
    await settle(database, month(), expected(month()))
    outcome, found = await reconcile(database)
    assert outcome.verdict == "undecided"
    assert {one.kind for one in found} == {Kind.UNPRICED}
    assert found[0].detail == "no price of input_tokens, output_tokens"


UNTOLD = {
    "input": ({"input_tokens": None}, "input tokens were not told"),
    "input beside other units": ({"input_tokens": None, "other_units": {"images": 2}}, "input tokens were not told"),
    "output": ({"output_tokens": None}, "output tokens were not told"),
    "output of an embedding": ({"output_tokens": None, "task": "feature-extraction"}, None),
    "both": (
        {"input_tokens": None, "output_tokens": None, "other_units": {"images": 2}},
        "input and output tokens were not told",
    ),
    "all": ({"input_tokens": None, "output_tokens": None}, "no units were told"),
}


@pytest.mark.parametrize("untold", UNTOLD)
async def test_a_count_that_was_not_told_is_not_held_against_the_provider(database, untold):
    told, detail = UNTOLD[untold]
    requests = month(2)
    requests["r001"] |= {"other_units": None} | told
    # What the images, the 1037 input and 51 output tokens cost that the provider counted, and those alone that it has.
    images = 80_000_000 if "other_units" in told else 0
    cost = -(-1037 * 123_456_789 // 10**6) if detail is None else 138_226 + images
    await record(database)
    await settle(database, requests, {"r000": expected(month(1))["r000"], "r001": cost})
    outcome, found = await reconcile(database, rounding_nano_usd=0)
    explains_itself(outcome)
    assert [(one.kind, one.request_id, one.detail) for one in found] == (
        [] if detail is None else [(Kind.UNPRICED, "r001", detail)]
    )
    assert outcome.verdict == ("within" if detail is None else "undecided")


async def test_a_missing_request_whose_count_was_not_told_has_no_known_amount(database):
    requests = month(1)
    requests["r000"]["input_tokens"] = None
    requests["r000"]["cached_input_tokens"] = None
    await record(database)
    await settle(database, requests, {})
    async with database.writing() as connection:
        await connection.execute(sa.update(usage).values(received_at_us=0))
    outcome, found = await reconcile(database)
    assert [(one.kind, one.amount_nano_usd) for one in found] == [(Kind.MISSING, None)]
    assert outcome.verdict == "undecided"


async def test_what_pages_part_is_the_same_as_what_one_page_holds(database):
    requests = month()
    for told in requests.values():
        told["served_at_us"] = OCTOBER_US + told["served_at_us"] % 3
    costs = expected(requests)
    await record(database)
    await settle(database, requests, {id: cost + 2000 for id, cost in costs.items()})
    whole, in_one = await reconcile(database, page_rows=1000)
    parts, in_parts = await reconcile(database, page_rows=1)
    assert in_one == in_parts
    assert (whole.groups, whole.states) == (parts.groups, parts.states)
    assert len(in_one) == 40


async def test_prices_of_the_same_time_are_the_one_recorded_later(database):
    await record(database, [version("owner/chat", "input_tokens", 1, OCTOBER_US)])
    await record(database, [version("owner/chat", "input_tokens", 3 * 10**9, OCTOBER_US)])
    await settle(
        database,
        {"r1": {"served_at_us": OCTOBER_US, "model": "owner/chat", "input_tokens": 10, "output_tokens": None}},
        {"r1": 30_000},
    )
    _, found = await reconcile(database, rounding_nano_usd=0)
    assert found == []


async def test_invariant_11_a_ledger_that_does_not_fit_its_requests_is_told(database):
    requests = month()
    costs = expected(requests)
    await record(database)
    await settle(database, requests, costs)
    whole = await look(database, range_ids=7)
    assert (whole.served, whole.charges, whole.wrong, whole.fits) == (40, 40, 0, True)
    async with database.writing() as connection:
        await unguarded(connection, "usage")
        change = sa.update(usage).where(usage.c.request_id == "r010").values(cost_nano_usd=costs["r010"] + 1)
        await connection.execute(change)
        back = (
            sa.update(usage)
            .where(usage.c.request_id == "r011")
            .values(state="pending", cost_nano_usd=None, settled_at_us=None)
        )
        await connection.execute(back)
    whole = await look(database, range_ids=7)
    assert (whole.wrong, whole.examples, whole.fits) == (2, ["acme/r010", "acme/r011"], False)
    outcome, found = await reconcile(database, tolerance_nano_usd=10**15)
    assert found.ids(Kind.UNBALANCED) == ["r010", "r011"]
    assert outcome.verdict == "beyond"


async def test_invariant_11_corrections_are_part_of_the_ledger(database):
    requests = month()
    costs = expected(requests)
    await record(database)
    await settle(database, requests, costs | {"r010": costs["r010"] + 5000})
    async with database.writing() as connection:
        usage_id = (await connection.execute(sa.select(usage.c.id).where(usage.c.request_id == "r010"))).scalar_one()
        now_us = await database.now_us(connection)
        await correct(connection, usage_id, costs["r010"], "agreed", "ann", now_us=now_us)
    assert (await look(database)).fits
    outcome, found = await reconcile(database)
    assert (found, outcome.verdict) == ([], "within")


async def test_the_daily_look_is_made_once_a_day_and_shown_by_every_process(database):
    await settle(database, month(3), {})
    first, second = LedgerWatch(database), LedgerWatch(database)
    await second.read()
    assert list(second.collect()) == []
    await first.tick()
    await take_in(database, served("another"))
    await second.tick()
    await second.read()
    values = {metric.name: metric.samples[0].value for metric in second.collect()}
    assert values["roadworthy_billing_ledger_served_requests"] == 3
    assert values["roadworthy_billing_ledger_wrong_requests"] == 0
    assert values["roadworthy_billing_ledger_looked_timestamp_seconds"] > 0
    async with database.writing() as connection:
        await connection.execute(sa.text("UPDATE chores SET taken_at_us = taken_at_us - 86400000001"))
    await second.tick()
    await first.read()
    assert next(iter(first.collect())).samples[0].value == 4


async def test_invariant_11_a_look_that_fails_is_made_again_within_the_hour(database, monkeypatch):
    await settle(database, month(3), {})
    watch = LedgerWatch(database)
    looks = []

    async def broken(_database):
        looks.append("broken")
        raise RuntimeError("the process dies")

    async def counted(database):
        looks.append("whole")
        return await look(database)

    async def pass_by(us):
        async with database.writing() as connection:
            await connection.execute(sa.text("UPDATE chores SET taken_at_us = taken_at_us - :us"), {"us": us})

    monkeypatch.setattr("roadworthy.billing.reconcile.watch.look", broken)
    with pytest.raises(RuntimeError):
        await watch.tick()
    await watch.tick()
    assert looks == ["broken"]
    await pass_by(HOUR_US)
    monkeypatch.setattr("roadworthy.billing.reconcile.watch.look", counted)
    await watch.tick()
    assert looks == ["broken", "whole"]
    # What is done is done for a whole day from then on.
    await pass_by(23 * HOUR_US)
    await watch.tick()
    assert looks == ["broken", "whole"]
    await pass_by(HOUR_US)
    await watch.tick()
    assert looks == ["broken", "whole", "whole"]
    await watch.read()
    assert next(iter(watch.collect())).samples[0].value == 3


async def test_what_a_person_decided_is_shown_and_held_against_nobody(database):
    requests = month()
    costs = expected(requests)
    await record(database)
    await settle(database, requests, costs)
    async with database.writing() as connection:
        usage_id = (await connection.execute(sa.select(usage.c.id).where(usage.c.request_id == "r010"))).scalar_one()
        await correct(connection, usage_id, 0, "goodwill", "ann", now_us=await database.now_us(connection))
    outcome, found = await reconcile(database)
    assert found.ids(Kind.CORRECTED) == ["r010"]
    assert [one.kind for one in found] == [Kind.CORRECTED]
    assert outcome.verdict == "within"


async def test_a_period_of_which_nothing_is_settled_yet_is_undecided(database):
    requests = month(3)
    await record(database)
    await settle(database, requests, {})
    outcome, found = await reconcile(database)
    assert (outcome.verdict, outcome.waiting, list(found)) == ("undecided", 3, [])

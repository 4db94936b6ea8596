"""`roadworthy billing reconcile` and `billing price` as an operator meets them."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import sys

import pyarrow.parquet
import pytest
from reconciling import MODELS, expected, invoice_of, month, record, settle
from validating import provider_with_mappings

from roadworthy.billing.reconcile.variance import Variance
from roadworthy.cli import main
from roadworthy.database import Database
from roadworthy.mapping_api.records import Item

REQUESTS = month(60)
COSTS = expected(REQUESTS)


def cli(*arguments, width=100):
    """Exit code, stdout and stderr of the command, without the seconds that a process takes to start."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        patch.setattr(sys, "argv", ["roadworthy", *map(str, arguments)])
        patch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit) as ended:
            main()
    return ended.value.code or 0, stdout.getvalue(), stderr.getvalue()


@pytest.fixture
def filled(database_url):
    """Makes a month in the database that costs what it is told to."""

    def fill(costs=COSTS, *, priced=True):
        async def go():
            database = Database(database_url)
            if priced:
                await record(database)
            await settle(database, REQUESTS, costs)
            await database.close()

        asyncio.run(go())
        return database_url

    return fill


def reconcile(url, *more, width=100):
    arguments = ["--provider", "acme", "--database", url]
    when = () if {"--month", "--from"} & set(more) else ("--month", "2026-10")
    return cli("billing", "reconcile", *arguments, *when, *more, width=width)


@pytest.mark.parametrize("width", [80, 120])
def test_a_month_that_fits(filled, tmp_path, width):
    url = filled()
    invoice = invoice_of(tmp_path / "invoice.csv", COSTS)
    code, out, _ = reconcile(url, "--invoice", invoice, "--whole-ledger", width=width)
    assert code == 0
    assert out.splitlines()[0] == "✓ within tolerance  acme, October 2026, UTC"
    assert "every settled cost is what it should be" in out
    assert "60 settled = 60 requests served" in out
    assert max(map(len, out.splitlines())) <= width


def test_every_variance_goes_to_every_file(filled, tmp_path):
    wrong = {id: cost + 5000 * (n % 2) for n, (id, cost) in enumerate(COSTS.items())}
    url = filled(wrong)
    paths = {kind: tmp_path / f"out.{kind}" for kind in ("csv", "parquet", "json", "html")}
    flags = [each for kind, path in paths.items() for each in (f"--{kind}", path)]
    code, out, _ = reconcile(url, *flags, width=80)
    assert code == 1
    assert "overcharged" in out
    assert "25 more; --csv or --parquet writes all of them" in out
    assert max(map(len, out.splitlines())) <= 80
    ids = list(COSTS)[1::2]
    with paths["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["request_id"] for row in rows] == ids
    assert {(row["kind"], row["amount_nano_usd"], row["amount_usd"]) for row in rows} == {
        ("overcharged", "5000", "0.000005")
    }
    table = pyarrow.parquet.read_table(paths["parquet"])
    assert table.column_names == list(Variance.__dataclass_fields__)
    assert {str(table.schema.field(name).type) for name in table.column_names if name.endswith("_nano_usd")} == {
        "int64"
    }
    assert [str(one["settled_nano_usd"]) for one in table.to_pylist()] == [row["settled_nano_usd"] for row in rows]
    told = json.loads(paths["json"].read_text())
    assert (told["verdict"], told["classes"][0]["count"], told["varianceNanoUsd"]) == ("beyond", 30, 30 * 5000)
    assert told["source"]["command"].startswith("roadworthy billing reconcile --provider acme")
    assert "Beyond tolerance" in paths["html"].read_text(encoding="utf-8")
    assert sorted(tmp_path.glob("*.part")) == []


def test_tolerances_and_periods(filled):
    url = filled(COSTS | {"r010": COSTS["r010"] + 5000})
    assert reconcile(url)[0] == 1
    assert reconcile(url, "--tolerance-usd", "0.000005")[0] == 0
    assert reconcile(url, "--tolerance-usd", "0.000004999")[0] == 1
    assert reconcile(url, "--tolerance-percent", "10")[0] == 0
    assert reconcile(url, "--rounding-nano-usd", "5000")[0] == 0
    assert reconcile(url, "--from", "2026-10-01", "--to", "2026-10-03T12:00:00+02:00")[0] == 0
    assert reconcile(url, "--month", "2026-09")[0] == 3


def test_hub_models_that_are_one_model_of_the_provider_are_compared_by_their_sum(filled, tmp_path):
    async def map_both(url):
        database = Database(url)
        items = [Item("conversational", "acme/v1", hf_model=model, status="live") for model in MODELS]
        await provider_with_mappings(database, "acme", None, items)
        await database.close()

    url = filled()
    asyncio.run(map_both(url))
    path = tmp_path / "totals.csv"
    path.write_text(f"model,cost_nano_usd\nacme/v1,{sum(COSTS.values())}\n")
    assert reconcile(url, "--invoice", path)[0] == 0
    path.write_text(f"model,cost_nano_usd\nacme/v1,{sum(COSTS.values()) + 60_001}\n")
    code, out, _ = reconcile(url, "--invoice", path, width=200)
    assert code == 1
    assert "acme/v1  USD settled" in out
    assert "the sum of 60 requests of owner/chat, owner/small" in out


def test_without_prices_it_is_undecided(filled):
    code, out, _ = reconcile(filled(priced=False))
    assert code == 3
    assert "60 of 60 variances have no known amount: prices are missing" in out


@pytest.mark.parametrize("dialect", ["sqlite"])  # what is said does not depend on the database
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--month", "2026-13"], "expected a month of UTC such as 2026-10"),
        (["--month", "2026-10", "--from", "2026-10-01"], "--month is a whole month"),
        (["--from", "2026-10-01"], "which period?"),
        (["--from", "2026-10-02", "--to", "2026-10-01"], "--from must be before --to"),
        (["--tolerance-usd", "much"], "--tolerance-usd: "),
        (["--tolerance-percent", "101"], "expected 0 to 100"),
        (["--column", "cost_usd=Net"], "name it with --invoice"),
        (["--decimal-mark", ";", "--invoice", "x"], "--decimal-mark: expected . or ,"),
        (["--invoice", "absent.csv"], "absent.csv: No such file"),
        (["--csv", "absent/out.csv"], "absent/out.csv cannot be written"),
        (["--provider", "amce"], "check the slug"),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(filled, flags, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = reconcile(filled(), *flags)
    assert code == 2
    assert says in err
    assert "fault of roadworthy" not in err


def test_prices_are_set_listed_and_imported(database_url, tmp_path):
    price = ["billing", "price"]
    where = ["--database", database_url]
    named = ["--provider", "acme", "--model", "owner/chat", "--unit", "input_tokens"]
    code, _, err = cli(*price, "set", *named, "--usd-per-million", "0.2", "--from", "2026-10-01", *where)
    assert code == 0
    assert "acme, owner/chat: a million input_tokens cost 0.2 USD from 2026-10-01T00:00:00Z on" in err
    code, _, err = cli(*price, "set", *named, "--usd-per-million", "0.0000000001", *where)
    assert code == 2
    assert "at most 9 decimals" in err
    file = tmp_path / "prices.csv"
    file.write_text("model,unit,usd_per_million,from\nowner/chat,output_tokens,0.6,2026-10-01\nowner/chat,images,x,\n")
    code, _, err = cli(*price, "import", file, "--provider", "acme", *where)
    assert code == 2
    assert "line 3: a price is USD per million units" in err
    assert "nothing was recorded" in err
    file.write_text("model,unit,usd_per_million,from\nowner/chat,output_tokens,0.6,2026-10-01\n")
    assert cli(*price, "import", file, "--provider", "acme", *where)[0] == 0
    code, out, _ = cli(*price, "list", "--json", *where)
    assert [(row["unit"], row["usd_per_million"], row["source"]) for row in json.loads(out)] == [
        ("input_tokens", "0.2", "operator"),
        ("output_tokens", "0.6", "import"),
    ]
    assert "output_tokens" in cli(*price, "list", "--provider", "acme", *where)[1]

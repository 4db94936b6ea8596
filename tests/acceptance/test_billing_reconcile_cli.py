"""`roadworthy billing reconcile` and `billing price` as an operator meets them."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import subprocess
import sys

import pyarrow.parquet
import pytest
from reconciling import MODELS, expected, invoice_of, month, record, settle
from services import enrol
from validating import provider_with_mappings

from roadworthy.billing.reconcile.variance import Variance
from roadworthy.cli import main
from roadworthy.cli.operator import show
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


@pytest.mark.parametrize("id", ['=HYPERLINK("http://x.test","pay")', "+1", "-1+1", "@SUM(1)", "\uff1d1+1"])
def test_no_id_is_a_formula_where_a_spreadsheet_opens_the_file(filled, tmp_path, id):
    quoted = id.replace('"', '""')
    invoice = invoice_of(tmp_path / "invoice.csv", COSTS, f'"{quoted}",7')
    paths = {kind: tmp_path / f"out.{kind}" for kind in ("csv", "parquet")}
    flags = [each for kind, path in paths.items() for each in (f"--{kind}", path)]
    assert reconcile(filled(COSTS | {"r010": COSTS["r010"] - 5000}), "--invoice", invoice, *flags)[0] == 1
    with paths["csv"].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["request_id"] for row in rows if row["kind"] == "unknown"] == [f"'{id}"]
    assert {row["amount_nano_usd"] for row in rows if row["kind"] == "undercharged"} == {"-5000"}
    assert {row["amount_usd"] for row in rows if row["kind"] == "undercharged"} == {"-0.000005"}
    table = pyarrow.parquet.read_table(paths["parquet"]).to_pylist()
    assert [row["request_id"] for row in table if row["kind"] == "unknown"] == [id]


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
        (["--tolerance-usd", "1,234"], "without commas; got '1,234'"),
        (["--decimal-mark", ","], "name it with --invoice"),
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


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+14:00"])
def test_a_time_beyond_the_calendar_is_refused_before_anything_is_recorded(database_url, tmp_path, time):
    asyncio.run(_acme(database_url))
    where = ["--database", database_url]
    price = ["billing", "price"]
    named = ["--provider", "acme", "--model", "owner/chat", "--unit", "input_tokens", "--usd-per-million", "0.2"]
    assert cli(*price, "set", *named, "--from", "2026-10-01", *where)[0] == 0
    file = tmp_path / "prices.csv"
    file.write_text(f"model,unit,usd_per_million,from\nowner/chat,output_tokens,1,{time}\n")
    for refused in (
        [*price, "set", *named, "--from", time],
        [*price, "import", file, "--provider", "acme"],
        ["billing", "reconcile", "--provider", "acme", "--from", "2026-10-01", "--to", time],
        ["billing", "reconcile", "--provider", "acme", "--from", time, "--to", "2026-11-01"],
        ["billing", "recheck", "--provider", "acme", "--since", time],
    ):
        code, _, err = cli(*refused, *where)
        assert (code, "expected in the years 1970 to 9998 of UTC" in err) == (2, True)
    code, out, _ = cli(*price, "list", "--json", *where)
    assert (code, [row["from"] for row in json.loads(out)]) == (0, ["2026-10-01T00:00:00Z"])


async def _acme(url, *more):
    database = Database(url)
    for provider in ("acme", *more):
        await enrol(database, provider)
    await database.close()


def test_prices_are_set_listed_and_imported(database_url, tmp_path):
    asyncio.run(_acme(database_url, "beta"))
    price = ["billing", "price"]
    where = ["--database", database_url]
    named = ["--provider", "acme", "--model", "owner/chat", "--unit", "input_tokens"]
    code, _, err = cli(*price, "set", *named, "--usd-per-million", "0.2", "--from", "2026-10-01", *where)
    assert code == 0
    assert "acme, owner/chat: a million input_tokens cost 0.2 USD from 2026-10-01T00:00:00Z on" in err
    for wrong, said in [
        (["--provider", "nosuch"], "no provider nosuch is registered"),
        (["--unit", "input_token"], "did you mean input_tokens?"),
    ]:
        code, _, err = cli(*price, "set", *named, *wrong, "--usd-per-million", "0.2", *where)
        assert code == 2
        assert said in err
    code, _, err = cli(*price, "set", *named, "--usd-per-million", "0.0000000001", *where)
    assert code == 2
    assert "at most 9 decimals" in err
    file = tmp_path / "prices.csv"
    file.write_text("model,unit,usd_per_million,from\nowner/chat,output_tokens,0.6,2026-10-01\nowner/chat,images,x,\n")
    code, _, err = cli(*price, "import", file, "--provider", "acme", *where)
    assert code == 2
    assert "line 3: a price is USD per million units" in err
    assert "nothing was recorded" in err
    for unit, provider, said in [
        ("output_token", "acme", "did you mean output_tokens?"),
        ("images", "amce", "no provider amce is registered"),
    ]:
        file.write_text(f"model,unit,usd_per_million\nowner/chat,{unit},0.6\n")
        code, _, err = cli(*price, "import", file, "--provider", provider, *where)
        assert code == 2
        assert said in err
        assert "nothing was recorded" in err
    file.write_text("model,unit,usd_per_million,from\nowner/chat,output_tokens,0.6,2026-10-01\n")
    assert cli(*price, "import", file, "--provider", "acme", *where)[0] == 0
    code, out, _ = cli(*price, "list", "--json", *where)
    assert [(row["unit"], row["usd_per_million"], row["source"]) for row in json.loads(out)] == [
        ("input_tokens", "0.2", "operator"),
        ("output_tokens", "0.6", "import"),
    ]
    table = cli(*price, "list", "--provider", "acme", *where)[1]
    assert table.splitlines() == [
        "model       unit           usd/million  from",
        "owner/chat  input_tokens   0.2          2026-10-01",
        "owner/chat  output_tokens  0.6          2026-10-01",
    ]
    file.write_bytes("\ufeffmodel;unit;usd_per_million\r\nowner/other;images;40\r\n".encode())
    assert cli(*price, "import", file, "--provider", "beta", *where)[0] == 0
    assert "beta      owner/other  images" in cli(*price, "list", *where)[1]


class Terminal(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self):
        return True


def test_a_table_is_as_wide_as_the_terminal_and_whole_in_a_file(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    row = {"model": f"owner/{'long-' * 20}chat", "unit": "cached_input_tokens", "usd": "0.2"}
    for out, whole in ((Terminal(), False), (io.StringIO(), True)):
        with contextlib.redirect_stdout(out):
            show([row], ("model", "unit", "usd"), as_json=False, nothing="", clip="model")
        titles, line = out.getvalue().splitlines()
        assert (row["model"] in line) is whole
        assert (max(len(titles), len(line)) == 80) is not whole
        assert ("... " in line) is not whole
        assert line.split()[-2:] == ["cached_input_tokens", "0.2"]


def test_a_verdict_keeps_its_exit_code_when_its_reader_has_left(filled):
    url = filled(priced=False)
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        command = [sys.executable, "-m", "roadworthy", "billing", "reconcile", "--provider", "acme"]
        done = subprocess.run(
            [*command, "--month", "2026-10", "--database", url],
            stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (3, "")

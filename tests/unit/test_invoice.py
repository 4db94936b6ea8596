"""Invoices are read with tolerance for their form, and none for their figures."""

from __future__ import annotations

import pytest

from roadworthy.billing.reconcile.invoice import Invoice
from roadworthy.errors import UsageError


@pytest.fixture
def read(tmp_path):
    opened = []

    def go(text, encoding="utf-8", **options):
        path = tmp_path / "invoice.csv"
        path.write_bytes(text.encode(encoding))
        opened.append(Invoice(path, folder=tmp_path, **options))
        return opened[-1]

    yield go
    for each in opened:
        each.close()


def lines(invoice, *ids):
    found = invoice.of(ids)
    return {id: [cost for _, cost in found.all_of(id)] for id in ids}


@pytest.mark.parametrize(
    ("text", "encoding", "options"),
    [
        ("request_id,cost_nano_usd\na,5\nb,7\n", "utf-8", {}),
        (
            "Request ID;Cost (nano USD)\r\na;5\r\nb;7\r\n",
            "utf-8-sig",
            {"columns": {"cost_nano_usd": "Cost (nano USD)"}},
        ),
        ("sep=;\nid;cost\na;0,000000005\nb;0,000000007\n", "utf-8", {"mark": ","}),
        ("requestId\tcostNanoUsd\na\t5\nb\t7\n", "utf-16", {}),
        ("\n\nInference-Id|note|cost_usd|currency\na|x, y|0.000000005|USD\nb||$0.000000007|usd\n", "utf-8", {}),
        ('request_id,cost\n"a","0.000000005"\n\n"b","0.000000007"\n,0.000000012\n', "utf-8", {}),
        (
            "Ref,Net\na,0.000000005\nb,0.000000007\nTotal,0.000000012\n",
            "utf-8",
            {"columns": {"request_id": "Ref", "cost_usd": "Net"}},
        ),
    ],
    ids=["plain", "excel", "comma", "utf-16", "pipes", "quoted", "named"],
)
def test_forms_of_invoices(read, text, encoding, options):
    invoice = read(text, encoding, **options)
    assert lines(invoice, "a", "b", "c") == {"a": [5], "b": [7], "c": []}
    assert (invoice.totals.lines, invoice.totals.nano_usd) == (2, 12)
    assert invoice.totals.stated_nano_usd in {None, 12}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column with the cost"),
        ("request_id,cost_eur\na,5\n", "'cost_eur' is not in USD"),
        ("request_id,cost,currency\na,5,EUR\n", "line 2: an amount in 'EUR'"),
        ("request_id,cost\na,5 €\n", "line 2: expected an amount in USD"),
        ("request_id,cost\na,\n", "line 2: expected an amount"),
        ("request_id,cost\na\n", "line 2: expected at least 2 cells"),
        ("request_id,cost,cost\na,5,6\n", "two columns are called 'cost'"),
        ("request_id,cost\n", "no lines with amounts"),
        ("request_id,cost\na,5\n,5\ntotal,5\n", "line 4: a second line without a request id"),
        ("day,cost\nyesterday,5\n", "line 2: expected a day"),
        ('request_id,cost\n"a\n', "line"),
        ('request_id,cost\na,"1,234"\n', "line 2: the amount '1,234' is 1234 to some and 1.234 to others"),
        ("request_id;cost\na;0,002\n", "line 2: .* say so with --decimal-mark ','"),
        ("request_id,Amount,tax,Total\na,5,1,6\n", "'Amount', 'Total' could each be .* --column cost_usd=HEADER"),
        ("request_id,nano_usd,cost_nano_usd\na,5,6\n", "could each be the cost; .* --column cost_nano_usd=HEADER"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(read, text, says):
    with pytest.raises(UsageError, match=says):
        read(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n;;\nrequest_id,cost\na,x\n", 4),
        ("sep=,\nrequest_id,cost\na,1\nb,x\n", 4),
        ("\r\nSEP=;\r\n\r\nrequest_id;cost\r\n\r\na;1\r\n\r\nb;x\r\n", 8),
        ('request_id,note,cost\na,"two\nlines",1\nb,,x\n', 4),
        ('"request_id","cost","a\nnote"\na,x,\n', 3),
        ("\n\nday,cost\n\n2026-10-01,x\n", 5),
    ],
)
def test_every_line_of_the_file_is_counted(read, text, line):
    with pytest.raises(UsageError, match=f"invoice.csv, line {line}: expected an amount"):
        read(text)


def test_where_the_file_is_no_csv_is_told_by_its_line(read):
    with pytest.raises(UsageError, match="line 3: not CSV: field larger than field limit"):
        read("\nrequest_id,cost\n" + "a" * (2 << 20) + ",1\n")
    with pytest.raises(UsageError, match="line 2: not CSV: field larger than field limit"):
        read("\n" + "a" * (2 << 20) + ",cost\na,1\n")


def test_columns_must_be_ours_and_there(read):
    with pytest.raises(UsageError, match="has no column 'amount'"):
        read("a,b\n1,2\n", columns={"amount": "b"})
    with pytest.raises(UsageError, match="no column is called 'Net'"):
        read("request_id,cost\na,2\n", columns={"cost_usd": "Net"})


def test_the_column_that_is_named_is_the_cost(read):
    text = "request_id,Amount,Total,cost_nano_usd\na,5,6,7\n"
    for columns, cost in (
        ({}, 7),
        ({"cost_usd": "Total"}, 6 * 10**9),
        ({"cost_usd": "amount"}, 5 * 10**9),
        ({"cost_nano_usd": "Amount"}, 5),
    ):
        assert lines(read(text, columns=columns), "a") == {"a": [cost]}
    assert lines(read("request_id,Net,NET\na,5,6\n", columns={"cost_nano_usd": "NET"}), "a") == {"a": [6]}
    with pytest.raises(UsageError, match="two columns are called 'net'"):
        read("request_id,Net,NET\na,5,6\n", columns={"cost_nano_usd": "net"})


def test_a_file_that_is_not_there_or_not_text_is_refused(read, tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        Invoice(tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="not UTF-8"):
        read("request_id,cost\n\xe4,5\n", "latin-1")


def test_totals_by_day_and_model_are_added_up(read):
    invoice = read("date,model,amount\n2026-10-01,a,1.5\n2026-10-01T10:00:00Z,a,0.5\n2026-10-02,b,1\nTotal,,3\n")
    assert not invoice.by_request
    day = 20_727
    assert invoice.totals.groups == {(day, "a"): 2 * 10**9, (day + 1, "b"): 10**9}
    assert invoice.totals.stated_nano_usd == 3 * 10**9


def test_lines_that_met_no_request_are_told_once_each(read):
    invoice = read("request_id,cost\n" + "".join(f"r{n},{n}\n" for n in range(25)) + "r3,9\n")
    found = invoice.of([f"r{n}" for n in range(0, 25, 2)])
    for number in (line.number for n in range(0, 25, 2) for line in found.all_of(f"r{n}")):
        invoice.meet(number)
    unmet = []
    for ids in invoice.unmet(4):
        unmet += ids
        for id in ids:
            for line in invoice.of([id]).all_of(id):
                invoice.meet(line.number)
    assert unmet == [f"r{n}" for n in range(1, 25, 2)]


def test_nothing_is_left_behind(read, tmp_path):
    invoice = read("request_id,cost\na,5\n")
    assert len(list(tmp_path.iterdir())) == 2
    invoice.close()
    assert [path.name for path in tmp_path.iterdir()] == ["invoice.csv"]
    with pytest.raises(UsageError):
        read("request_id,cost\na,x\n")
    assert [path.name for path in tmp_path.iterdir()] == ["invoice.csv"]

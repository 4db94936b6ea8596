"""What goes into a cell of a CSV file that spreadsheets open."""

from __future__ import annotations

from typing import Any

LIFTED = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Spreadsheets take a text that begins so for a formula; the last four are the first four in full width."""


def cell(name: str, value: Any) -> Any:
    """The value of the column `name`; nothing for None; a text that a spreadsheet would run, after an apostrophe.

    Columns called `..._usd` hold amounts, which begin with a minus and are left alone.
    """
    if isinstance(value, str) and not name.endswith("_usd") and value.startswith(LIFTED):
        return f"'{value}"
    return "" if value is None else value

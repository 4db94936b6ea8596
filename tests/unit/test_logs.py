"""What looks like a secret stands in no log line, whatever quick look decides whether to search it."""

from __future__ import annotations

import pytest

from roadworthy import logs


@pytest.mark.parametrize(
    "secret",
    [
        f"{prefix}abcdef0123456789"
        for prefix in ("hf_", "sk-", "whsec_", "rwg_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "xoxb-", "xoxp-", "AKIA")
    ],
)
def test_tokens_are_hidden_by_their_form(secret):
    assert logs.hide(f'{{"query": "a={secret}&b=1"}}') == '{"query": "a=***&b=1"}'


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer ***"),
        ("authorization: bearer abc.def-123456", "authorization: bearer ***"),
        ("postgresql://me:open-sesame@db/x", "postgresql://***@db/x"),
        ("GET /api/models/acme/chat answered 200", "GET /api/models/acme/chat answered 200"),
    ],
)
def test_credentials_are_hidden_where_they_stand(line, shown):
    assert logs.hide(line) == shown

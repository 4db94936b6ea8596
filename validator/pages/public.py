"""What may be shown to everybody of what a provider's API said: words, but nothing that opens a door.

Recordings and findings are redacted by value where they are made: the key that was sent is in none
of them. This is a second net, by form: keys of others, signed addresses, names inside a network.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from roadworthy.http.message import Headers

HIDDEN = "[hidden]"
SHOWN_HEADERS = frozenset(
    [
        *("content-type", "content-length", "content-encoding", "transfer-encoding", "date", "retry-after"),
        *("cache-control", "accept", "accept-encoding", "user-agent", "allow", "x-ratelimit-limit-requests"),
        *("x-ratelimit-remaining-requests", "inference-id", "x-request-id", "x-compute-type", "x-compute-time"),
    ]
)
"""The headers that tell something of a failure and nothing of a secret; the others are named, but not shown."""

_URL = re.compile(r"""(?i)\b([a-z][a-z0-9+.-]{1,20}:(?:\\?/){2})((?:\\/|[^\s"'<>\\`])*)""")
_WORDS = re.compile(
    r"""(?ix)
    (?P<named> (?: \b bearer \s+ | (?: api[_-]?key | access[_-]?token | secret | password | passwd | authorization
        | signature | credential ) ["']? \s* [:=] \s* ["']? (?: bearer \s+ | basic \s+ )? ) )
        (?P<value> (?! (?: bearer | basic ) \b ) [^\s"'<>,;}{\[\]]{6,} )
    | \b (?: sk | pk | rk | hf | key | tok | ghp | gho | xox[abp] | whsec | AKIA | ASIA )
        [-_]? [A-Za-z0-9] [A-Za-z0-9_-]{15,}
    | \b eyJ[A-Za-z0-9_-]{8,} (?: \. [A-Za-z0-9_-]+ ){1,2}
    | \b (?: 10 | 127 | 169\.254 | 192\.168 | 172\.(?: 1[6-9] | 2[0-9] | 3[01] ) ) (?: \.[0-9]{1,3} ){2,3}
        (?: : [0-9]{1,5} )? \b
    | \b [a-z0-9-]+ (?: \. [a-z0-9-]+ )* \. (?: internal | local | svc | lan | corp | intranet | cluster ) \b
        (?: : [0-9]{1,5} )?
    """
)


def text(said: str) -> str:
    """The text without what looks like a key, and with addresses cut before their query."""
    return _WORDS.sub(_masked, _URL.sub(_plain_url, said))


def _masked(match: re.Match[str]) -> str:
    return (match["named"] or "") + HIDDEN


def _plain_url(match: re.Match[str]) -> str:
    scheme, rest = match[1], match[2]
    rest, mark, _ = rest.partition("?")
    authority, slash, path = rest.partition("/")
    account, at, host = authority.rpartition("@")
    return scheme + (HIDDEN + "@" if at and account else "") + host + slash + path + ("?" + HIDDEN if mark else "")


def path_of(url: str) -> str:
    """Where a request went within the API: its path alone."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    return text(parts.path or "/") + ("?" + HIDDEN if parts.query else "")


def headers(pairs: Headers) -> list[tuple[str, str]]:
    """The headers, the values of those that are not known to be harmless hidden."""
    return [(name, text(value) if name.lower() in SHOWN_HEADERS else HIDDEN) for name, value in pairs]

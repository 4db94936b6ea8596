"""What every page that roadworthy makes shares: strict templates that escape, and spell out what would hide or act."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_UNSEEN = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but tab and line feed: a terminal obeys them, XML forbids them
    "\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff"  # unseen, or reorders what is seen
    "\ud800-\udfff\ufffe\uffff"  # cannot be written as UTF-8, or not as XML
    "]"
)


def visible(text: str) -> str:
    r"""`text` with everything that acts instead of being seen spelled as a backslash escape, as in \x1b."""
    return _UNSEEN.sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def environment(package: str, **names: Any) -> Environment:
    """The templates in the folder `templates` of a package. `names` are known to all of them."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    made.globals |= names
    return made


def file(package: str, name: str) -> str:
    """A text beside a package's templates: a style, a script."""
    return (resources.files(package) / "templates" / name).read_text(encoding="utf-8")


def _finalize(value: object) -> object:
    """Spell out control and reordering characters in every value that is shown."""
    return visible(value) if type(value) is str else value

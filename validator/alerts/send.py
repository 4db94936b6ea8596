"""Sending one message to one channel, through Apprise.

Apprise's services block, and some can be held up for as long as the other side likes. So each
message is sent in a thread of its own, and after a hard deadline nobody waits for it any more.

URLs that a provider's members registered are not trusted: only services that speak HTTPS are
allowed, none of their options, and each connection that their thread makes is judged by the very
address it goes to (Python's audit hooks see it), whatever a name or a redirect said before.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
import threading
import warnings
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import yarl

from roadworthy.errors import ConfigError, ForbiddenTargetError, RoadworthyError
from roadworthy.http.guard import Guard, UnresolvedError
from roadworthy.http.redact import Redactor
from roadworthy.validator.alerts.texts import Form, Message

HOSTED = {"jsons": "json", "xmls": "xml", "forms": "form", "ntfys": "ntfy", "mmosts": "mmost", "rockets": "rocket"}
"""Services at a host that the URL names, with their forms without TLS."""
FIXED = frozenset({"slack", "discord", "gchat", "tgram", "pagerduty", "opsgenie", "msteams", "workflows"})
"""Services at hosts of their own, which speak HTTPS."""
SHOWN_CHARACTERS = 300

_FORMS: dict[str, Form] = {"html": "html", "markdown": "markdown"}
_COMMANDS = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.startfile")
_judging = threading.local()
_importing = threading.Lock()


class ChannelError(ConfigError):
    """A channel's URL cannot be used; the message does not repeat the URL, which holds a secret."""


class Sender:
    """Sends messages, each within its time."""

    def __init__(self, guard: Guard, *, timeout_s: float = 20.0) -> None:
        """`guard` judges where providers' channels may lead."""
        self._guard = guard
        self._timeout_s = timeout_s
        self._hanging: dict[str, threading.Thread] = {}

    def hangs(self, channel_id: str) -> bool:
        """Whether the last message to that channel, given up long ago, still keeps its thread."""
        thread = self._hanging.get(channel_id)
        if thread is not None and not thread.is_alive():
            del self._hanging[channel_id]
            return False
        return thread is not None

    async def check(self, url: str, *, trusted: bool) -> str:
        """The service that the URL is of. Raises `ChannelError` for one that cannot be used, or is not allowed."""
        service, host = await asyncio.to_thread(_read, url, trusted, self._guard.allow_private)
        if host is not None:
            try:
                await self._guard.look_up(host)
            except (ForbiddenTargetError, UnresolvedError) as error:
                raise ChannelError(f"the channel is not allowed: {error}") from None
        return service

    async def send(self, channel_id: str, url: str, message: Message, *, trusted: bool) -> str | None:
        """Send a message. None: it was taken; else why not, without secrets."""
        if self.hangs(channel_id):
            return "the message before still hangs"
        if not trusted:
            try:
                await self.check(url, trusted=False)
            except ChannelError as error:
                return str(error)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str | None] = loop.create_future()

        def settle(said: str | None) -> None:
            if not done.done():
                done.set_result(said)

        def work() -> None:
            _judging.guard = None if trusted else self._guard
            said = _send(url, message, self._timeout_s)
            try:
                loop.call_soon_threadsafe(settle, said)
            except RuntimeError:
                return  # the loop was closed meanwhile: nobody waits for the answer

        # A thread that must not keep the process from ending, which a pool's would.
        thread = threading.Thread(target=work, name=f"alert {channel_id}", daemon=True)
        thread.start()
        try:
            return await asyncio.wait_for(done, self._timeout_s)
        except TimeoutError:
            self._hanging[channel_id] = thread
            return f"no answer within {self._timeout_s:g} s"


def urls_in(text: str) -> list[str]:
    """The URLs of an environment variable. A comma alone separates none: Apprise's URLs may hold commas."""
    return text.split()


def _read(url: str, trusted: bool, allow_private: bool) -> tuple[str, str | None]:
    """The service of a URL, and an https URL of the host that must be judged, if one must."""
    _watch()
    scheme, mark, rest = url.partition("://")
    scheme = scheme.lower()
    if not mark:
        raise ChannelError("a channel is an Apprise URL, such as slack://... or jsons://host/path; this is not one")
    plain = {without: with_tls for with_tls, without in HOSTED.items()}
    if not trusted:
        allowed = {*HOSTED, *FIXED, *(plain if allow_private else ())}
        if scheme not in allowed:
            raise ChannelError(
                f"channels of providers may use {', '.join(sorted(allowed))}; {scheme[:20]!r} is none of these. "
                "The operator can add any other"
            )
        if "?" in rest:
            raise ChannelError("channels of providers take no options; leave out the question mark and what follows")
    plugin = _plugin(url, trusted=trusted, timeout_s=1.0)
    host = None
    if not trusted and scheme not in FIXED:
        tls = scheme in HOSTED
        name = str(plugin.host or "").strip("[]")
        try:
            host = str(yarl.URL.build(scheme="https" if tls else "http", host=name, port=plugin.port, path="/"))
        except (ValueError, TypeError):
            raise ChannelError("the channel's host cannot be read; write it as in jsons://example.com/path") from None
    return str(plugin.service_name), host


def _plugin(url: str, *, trusted: bool, timeout_s: float) -> Any:
    apprise = _apprise()
    asset = apprise.AppriseAsset(
        app_id="roadworthy",
        app_desc="roadworthy alerts",
        app_url="",
        storage_mode=apprise.PersistentStoreMode.MEMORY,
        service_timeout=timeout_s,
        allow_templates=trusted,
        http_redirects=trusted,
        async_mode=False,
        pgp_autogen=False,
        pem_autogen=False,
    )
    plugin = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if plugin is None:
        raise ChannelError(
            f"Apprise cannot read the channel's URL, which begins with {url.partition('://')[0][:20]!r}; "
            "its form for each service is at https://appriseit.com/services/"
        )
    plugin.socket_connect_timeout = plugin.socket_read_timeout = timeout_s
    return plugin


def _send(url: str, message: Message, timeout_s: float) -> str | None:
    redactor = Redactor(_secrets(url))
    said = _Said()
    try:
        _watch()
        plugin = _plugin(url, trusted=getattr(_judging, "guard", None) is None, timeout_s=timeout_s)
        form = _FORMS.get(str(plugin.resolve_format(None).value), "text")
        apprise = _apprise()
        grave = {"critical": "failure", "error": "failure", "warning": "warning"}[message.severity]
        with said:
            taken = plugin.notify(
                title=message.title,
                body=message.render(form, plugin.body_maxlen or None),
                notify_type=apprise.NotifyType("success" if message.is_good else grave),
                body_format=apprise.NotifyFormat(form),
            )
    except RoadworthyError as error:
        return _shown(str(error), redactor)
    except Exception as error:  # noqa: BLE001  a hundred services' code: whatever it raises is this channel's trouble
        return _shown(f"{type(error).__name__}: {error}", redactor)
    if taken:
        return None
    refused = getattr(_judging, "refused", None)
    return _shown(refused or "; ".join(said.lines) or "the channel did not take it", redactor)


def _shown(text: str, redactor: Redactor) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in redactor.text(text)).split())
    return line[:SHOWN_CHARACTERS]


def _secrets(url: str) -> list[str]:
    """Whatever of a URL may be a secret: all of it but scheme, port and well-known words."""
    parts = urlsplit(url)
    found = [url, parts.netloc, parts.path, parts.query, parts.password or "", parts.username or ""]
    found += [*parts.path.split("/"), *(pair.partition("=")[2] for pair in parts.query.split("&"))]
    return [text for part in found for text in {part, unquote(part)} if len(text) >= 6]


def _apprise() -> Any:
    """Apprise, on first use: it takes half a second to import."""
    with _importing:
        return _imported()


@functools.cache
def _imported() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its services' own imports, which it loads all at once
            import apprise
            from apprise.plugins import N_MGR

            N_MGR.load_modules()  # type: ignore[no-untyped-call]
    except ImportError:
        raise ConfigError("sending alerts needs Apprise: pip install 'roadworthy[server]'") from None
    # What it says goes to whoever asked for the message, without secrets, and not into the log.
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return apprise


class _Said(logging.Handler):
    """What Apprise says in this thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if threading.get_ident() == self._thread and len(self.lines) < 5:
            self.lines.append(record.getMessage())

    def __enter__(self) -> Self:
        logging.getLogger("apprise").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("apprise").removeHandler(self)


@functools.cache
def _watch() -> None:
    """Judge every connection of threads that send for providers. Hooks cannot be removed, so there is one."""
    sys.addaudithook(_audit)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event not in {"socket.connect", "socket.sendto"} and not event.startswith(_COMMANDS):
        return
    guard: Guard | None = getattr(_judging, "guard", None)
    if guard is None:
        return
    try:
        if not event.startswith("socket."):
            raise ForbiddenTargetError("a channel may run no program")
        address = args[1]
        if not isinstance(address, tuple):
            raise ForbiddenTargetError("a channel may use no socket of this machine")
        guard.permit(str(address[0]).partition("%")[0])
    except ForbiddenTargetError as error:
        _judging.refused = str(error)
        # What the libraries in between know how to clean up after.
        raise PermissionError(str(error)) from None

"""The guard for outgoing calls to URLs that others gave us: what may be connected to, and nothing else.

A URL is judged by its text first (`check`). Its name is then resolved once, every address of the
answer is judged, and a connection goes to one of those addresses alone: the resolver that aiohttp
asks is ours, and each socket is judged again by the very address it is made for (`permit`). So a
name that changes its answer between two questions gains nothing. TLS still checks the name.

The rules for URLs and most of the table of addresses are `ssrfguard`'s; what it lets pass and
we do not is here.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from ssrfguard import BlockedAddressError, BlockedURLError, Policy

from roadworthy.errors import ForbiddenTargetError, RoadworthyError

DEFAULT_PORTS = frozenset({443, 8443})
"""The ports that a public target may have."""
MAX_URL_LENGTH = 2048
LOOKUP_THREADS = 16
"""Name look-ups at once. The system's resolver cannot be interrupted, so one that hangs keeps its thread."""
LOOKUP_TIMEOUT_S = 5.0

_METADATA = tuple(
    map(ip_address, ("168.63.129.16", "169.254.169.254", "169.254.170.2", "100.100.100.200", "fd00:ec2::254"))
)
"""Services of clouds that tell machines their secrets. The first looks like any public address."""
_PRIVATE = tuple(
    map(ip_network, ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"))
)
_UNICAST = ip_network("2000::/3")
_CARRYING = tuple(map(ip_network, ("::ffff:0:0/96", "64:ff9b::/96", "::/96")))
"""Outside global unicast only these may carry a public IPv4 address; `ssrfguard` looks inside."""
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)\.?$", re.IGNORECASE)
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f\\]")

Address = IPv4Address | IPv6Address
Lookup = Callable[[str], Iterable[str]]
"""Asks for the addresses of a name; may block. Raises `OSError` where there are none."""


class UnresolvedError(RoadworthyError):
    """The name of a target has no address, or the name servers did not say in time."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL that passed leads. `host` is in the form that is resolved."""

    host: str
    port: int
    address: Address | None
    """Set where the host is written as an address."""


class Guard:
    """The rules for one kind of target, and the resolver that enforces them.

    `allow_private` lets loopback and private networks, any port and plain http through: for demos
    and closed networks, by the operator's word only. Metadata services, link-local, multicast and
    reserved addresses stay forbidden even then.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        ports: Collection[int] = DEFAULT_PORTS,
        lookup: Lookup | None = None,
    ) -> None:
        self.allow_private = allow_private
        self._lookup = lookup or system_lookup
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: dict[str, asyncio.Future[tuple[str, ...]]] = {}
        self._policy = Policy(
            allowed_schemes=frozenset({"https", "http"} if allow_private else {"https"}),
            allowed_networks=_PRIVATE if allow_private else (),
            allowed_ports=frozenset(range(1, 65536) if allow_private else ports),
            max_url_length=MAX_URL_LENGTH,
        )
        self._ports = "any port" if allow_private else ", ".join(map(str, sorted(ports)))
        self.resolver = GuardedResolver(self)
        """For aiohttp: gives out judged addresses only."""

    def check(self, url: str) -> Place:
        """Where the URL leads, judged by its text alone. Raises `ForbiddenTargetError`."""
        if len(url) > MAX_URL_LENGTH:
            raise ForbiddenTargetError(f"a URL of {len(url):,} characters is too long; {MAX_URL_LENGTH:,} are allowed")
        if _NOT_IN_URLS.search(url):
            raise ForbiddenTargetError("a URL must hold no space, control character or backslash; write them escaped")
        try:
            target = self._policy.check_url(url)
        except BlockedURLError as error:
            raise ForbiddenTargetError(self._explain(error.reason)) from None
        if target.address is None and _ENDS_IN_NUMBER.search(target.host):
            raise ForbiddenTargetError(
                f"the host {target.host!r} is a number in an unusual spelling; write a name, or an address as 203.0.1.7"
            )
        try:
            parsed = yarl.URL(url)
            asked, port = (parsed.raw_host or "").lower(), parsed.port
        except ValueError:
            asked, port = "", None
        # What judges and what connects must read the same host out of the URL.
        same = asked == target.host.lower() if target.address is None else _address(asked) == target.address
        if not same or port != target.port:
            raise ForbiddenTargetError(f"the host {target.host!r} can be read in two ways; write it in its xn-- form")
        if target.address is not None:
            self.permit(str(target.address))
        return Place(target.host, target.port, target.address)

    def _explain(self, reason: str) -> str:
        if reason.startswith("scheme"):
            schemes = "https or http" if self.allow_private else "https"
            return f"only {schemes} URLs are allowed; {reason.partition(' is not')[0]} is not"
        if reason.startswith("port"):
            return f"{reason.partition(' is not in')[0]} is not allowed; allowed: {self._ports}"
        if "credentials" in reason:
            return "a URL must not hold a user name or password"
        if reason[0].isdigit() or reason[0] == ":":
            return f"the address in the URL is not allowed as a target: {reason}"
        return f"the URL {reason.partition(';')[0].partition(', which')[0]}"

    def permit(self, address: str) -> None:
        """Raises `ForbiddenTargetError` unless a connection to this address is allowed."""
        reason = self._forbidden(address)
        if reason:
            raise ForbiddenTargetError(f"the address {address} is not allowed as a target: {reason}")

    def _forbidden(self, address: str) -> str:
        """Why the address is forbidden; empty where it is not."""
        parsed = _address(address)
        if parsed is None:
            return "it is not an IP address"
        inner = _carried(parsed)
        if parsed in _METADATA or inner in _METADATA:
            return "it is a cloud's metadata service"
        if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
            return "it is bound to one network interface"
        try:
            self._policy.check_address(parsed)
        except BlockedAddressError as error:
            return error.reason
        # The registries name what is special; of the rest of IPv6 only one eighth was ever given out.
        known = (_UNICAST, *_CARRYING, *self._policy.allowed_networks)
        return "" if parsed.version == 4 or any(parsed in network for network in known) else "it is not public"

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses of a name, all judged. One that is forbidden condemns them all.

        Raises `ForbiddenTargetError`, `UnresolvedError`.
        """
        found = await self._ask(host)
        if not found:
            raise UnresolvedError(f"the name {host} has no address")
        if any(self._forbidden(address) for address in found):
            # Which address it was is not said: callers must not learn of our networks by asking.
            raise ForbiddenTargetError(f"the name {host} leads, at least in part, to addresses that are not public")
        return found

    async def look_up(self, url: str) -> Place:
        """`check`, and its name resolved and judged too. Raises `ForbiddenTargetError`, `UnresolvedError`."""
        place = self.check(url)
        if place.address is None:
            try:
                async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                    await self.addresses(place.host)
            except TimeoutError:
                raise UnresolvedError(
                    f"the name servers of {place.host} did not answer within {LOOKUP_TIMEOUT_S:g} s"
                ) from None
        return place

    async def _ask(self, host: str) -> tuple[str, ...]:
        """Questions for one name that come at once share one look-up: a name that hangs holds one thread."""
        asked = self._under_way.get(host)
        if asked is None:
            self._pool = self._pool or ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup")
            asked = asyncio.get_running_loop().run_in_executor(self._pool, self._resolved, host)
            self._under_way[host] = asked
            asked.add_done_callback(
                lambda done: (self._under_way.pop(host, None), done.cancelled() or done.exception())
            )
        return await asyncio.shield(asked)

    def _resolved(self, host: str) -> tuple[str, ...]:
        try:
            return tuple(dict.fromkeys(self._lookup(host)))
        except (OSError, ValueError):
            raise UnresolvedError(f"the name {host} cannot be resolved; check its spelling") from None

    def close(self) -> None:
        """Let go of the threads that resolve names."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


class GuardedResolver(AbstractResolver):
    """The guard as aiohttp's resolver."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The judged addresses of a name. Raises `ForbiddenTargetError`, or `OSError` where there are none."""
        try:
            found = await self._guard.addresses(host)
        except UnresolvedError as error:
            raise OSError(None, str(error)) from error
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in found]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=own,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address, own in zip(found, families, strict=True)
            if family in {socket.AF_UNSPEC, own}
        ]

    async def close(self) -> None:
        """The guard's threads outlive a connector: another may use them."""


def system_lookup(host: str) -> list[str]:
    """The addresses the system's resolver gives."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _carried(address: Address) -> Address | None:
    """The IPv4 address that an IPv6 address stands for, where its form is one of the plain ones."""
    if isinstance(address, IPv4Address):
        return None
    if any(address in network for network in _CARRYING):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or (address.teredo[1] if address.teredo else None)

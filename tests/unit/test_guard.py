"""The guard for outgoing calls: every forbidden place in every spelling, and a name that changes its answer."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time

import aiohttp
import pytest
import trustme
from loopback import serving

from roadworthy.errors import ForbiddenTargetError
from roadworthy.http.aiohttp_transport import AiohttpTransport
from roadworthy.http.guard import Guard, UnresolvedError
from roadworthy.http.message import FailureKind, Limits, Request

FORBIDDEN = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16
    169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1
    192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.7 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::10.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:168.63.129.16
    ::ffff:0:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::168.63.129.16 64:ff9b:1::1 64:ff9b:1::8.8.8.8
    100::1 2001:db8::1 2001:2::1 2001:0:7f00:1:: 2001:0:808:808:0:0:80ff:fffe 2001:0:808:808::f5ff:fffe
    2002:7f00:1:: 2002:a00:1::1 2002:a9fe:a9fe:: 2002:c0a8:1:: 2002:a83f:8110:: 3fff::1 5f00::1 4000::1 fc00::1
    fd00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 fe80::1%1 fec0::1 ff02::1 ff0e::1
""".split()
PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1 168.63.129.15
    172.15.255.255 172.32.0.1 192.167.255.255 192.169.0.1 223.255.255.255
    2606:4700:4700::1111 2a00:1450:4001:80e::200e ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1
""".split()


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_that_is_not_public_is_forbidden(address):
    with pytest.raises(ForbiddenTargetError):
        Guard().permit(address)
    guard = Guard(lookup=lambda _host: ["8.8.8.8", address])
    with pytest.raises(ForbiddenTargetError) as refused:
        asyncio.run(guard.look_up("https://name.example/"))
    assert address not in str(refused.value), "which address it was must not be told"
    guard.close()


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address):
    Guard().permit(address)
    host = f"[{address}]" if ":" in address else address
    assert Guard().check(f"https://{host}/hook").address == ipaddress.ip_address(address)


@pytest.mark.parametrize("text", ["", "name", "1.2.3", "1.2.3.4.5", "0x7f.0.0.1", "01.2.3.4", "1.2.3.4\n", "[::1]"])
def test_what_is_no_address_is_forbidden(text):
    with pytest.raises(ForbiddenTargetError):
        Guard().permit(text)


SPELLINGS = [
    "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0X7F.0.0.1", "0177.0.0.1", "017700000001", "127.0.0.1.",
    "①②⑦.0.0.1", "127。0。0。1", "\uff11\uff12\uff17.0.0.1", "0", "0x", "1.0x0", "[::1]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:0:0:1]", "[::1%25lo]", "[::1%lo]", "127.0.0.1%00", "%31%32%37.0.0.1", "10.0.0.1", "169.254.169.254",
    "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fd00:ec2::254]", "168.63.129.16", "3232235777", "foo.127", "a.0x7f",
]  # fmt: skip


WELL_WRITTEN = {"10.0.0.1", "[::1]", "[0:0:0:0:0:0:0:1]", *SPELLINGS[9:12]}
"""Private addresses in plain digits, once Unicode's forms are folded: an operator may allow these."""


@pytest.mark.parametrize("host", SPELLINGS)
def test_odd_spellings_are_refused_by_the_text_alone(host):
    for allow_private in (False,) if host in WELL_WRITTEN else (False, True):
        with pytest.raises(ForbiddenTargetError):
            Guard(allow_private=allow_private).check(f"https://{host}/hook")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.com/", "only https URLs"),
        ("ftp://example.com/", "only https URLs"),
        ("file:///etc/passwd", "only https URLs"),
        ("HTTPS://user@example.com/", "user name or password"),
        ("https://user:word@example.com/", "user name or password"),
        ("https://@example.com/", "user name or password"),
        ("https://example.com:80/", "allowed: 443, 8443"),
        ("https://example.com:22/", "allowed: 443, 8443"),
        ("https://example.com:0/", "not a port"),
        ("https://example.com:65536/", "port"),
        ("https://example.com:x/", "port"),
        ("https://", "no host"),
        ("https:///path", "no host"),
        ("//example.com/", "scheme"),
        ("example.com", "scheme"),
        ("", "scheme"),
        ("https://good.example\\@127.0.0.1/", "backslash"),
        ("https://good.example\t/", "control character"),
        ("https://good.example/\r\nX: y", "control character"),
        (" https://good.example/", "space"),
        ("https://exa mple.com/", "space"),
        ("https://example.com/" + "a" * 2048, "too long"),
        ("https://" + "a" * 300 + ".example/", "longer than"),
        ("https://faß.example/", "xn--"),
        ("https://[::1/", "URL"),
        ("https://exa_mple!.com/", "well-formed"),
    ],
)
def test_a_url_that_breaks_a_rule_is_refused_with_the_rule(url, words):
    with pytest.raises(ForbiddenTargetError, match=words):
        Guard().check(url)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://example.com/hook?a=b#c", "example.com", 443),
        ("https://Example.COM:8443/", "example.com", 8443),
        ("https://example.com./", "example.com.", 443),
        ("https://münchen.example/", "xn--mnchen-3ya.example", 443),
        ("https://xn--mnchen-3ya.example/", "xn--mnchen-3ya.example", 443),
    ],
)
def test_a_plain_https_url_passes(url, host, port):
    place = Guard().check(url)
    assert (place.host, place.port, place.address) == (host, port, None)


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost.", "metadata.google.internal"])
def test_a_name_of_a_forbidden_address_is_refused_when_it_is_looked_up(name):
    guard = Guard(lookup=lambda host: {"metadata.google.internal": ["169.254.169.254"]}.get(host, ["127.0.0.1"]))
    with pytest.raises(ForbiddenTargetError, match="not public"):
        asyncio.run(guard.look_up(f"https://{name}/"))
    guard.close()


@pytest.mark.parametrize("answer", [["8.8.8.8", "10.0.0.1"], ["2606:4700::1", "127.0.0.1"], ["8.8.8.8", "::1"]])
def test_a_mixed_answer_is_refused_whole(answer):
    guard = Guard(lookup=lambda _host: answer)
    with pytest.raises(ForbiddenTargetError, match="at least in part"):
        asyncio.run(guard.addresses("mixed.example"))
    guard.close()


def test_a_name_without_an_address_is_said_to_be_unresolved():
    def no_such_name(_host):
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    for lookup, words in ((no_such_name, "cannot be resolved"), (lambda _host: [], "no address")):
        guard = Guard(lookup=lookup)
        with pytest.raises(UnresolvedError, match=words):
            asyncio.run(guard.look_up("https://nowhere.example/"))
        guard.close()


def test_private_targets_are_allowed_by_the_operator_but_never_metadata():
    guard = Guard(allow_private=True)
    for address in ("127.0.0.1", "10.1.2.3", "192.168.1.1", "::1", "fd12::1", "8.8.8.8"):
        guard.permit(address)
    for address in ("169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200", "224.0.0.1", "0.0.0.0",
                    "::ffff:169.254.169.254", "fe80::1", "255.255.255.255"):  # fmt: skip
        with pytest.raises(ForbiddenTargetError):
            guard.permit(address)
    assert guard.check("http://127.0.0.1:9000/hook").port == 9000


class _Loopback(Guard):
    """Takes 127.0.0.1 for a public address, so that a server of the test can stand for one in the world."""

    def _forbidden(self, address):
        return "" if address == "127.0.0.1" else super()._forbidden(address)


def _exchange(guard, path, *, scheme="https", host="receiver.example", ca=None, tls=None, requests=1, handler=None):
    seen = []

    async def answering(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()

    async def go():
        async with serving(handler or answering, tls) as port:
            transport = AiohttpTransport(ca, guard)
            try:
                url = f"{scheme}://{host}:{port}{path}"
                return [await transport.send(Request("POST", url, (), b"{}"), Limits()) for _ in range(requests)]
            finally:
                await transport.aclose()

    replies = asyncio.run(go())
    guard.close()
    return replies, seen


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("receiver.example").configure_cert(context)
    names = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return context, path, names


def test_tls_is_by_name_though_the_connection_is_by_address(tls):
    context, ca, names = tls
    guard = _Loopback(ports=range(1, 65536), lookup=lambda _host: ["127.0.0.1"])
    (reply,), seen = _exchange(guard, "/hook", ca=ca, tls=context)
    assert reply.failure is None
    assert reply.status == 200
    assert names[-1] == "receiver.example"
    assert b"Host: receiver.example" in seen[0]


def test_a_certificate_for_another_name_is_refused(tls):
    context, ca, _ = tls
    guard = _Loopback(ports=range(1, 65536), lookup=lambda _host: ["127.0.0.1"])
    (reply,), seen = _exchange(guard, "/", host="other.example", ca=ca, tls=context)
    assert reply.failure.kind is FailureKind.TLS
    assert seen == []


def test_a_name_that_changes_its_answer_is_never_connected_to(tls):
    """DNS rebinding with a TTL of zero: public when it is checked, loopback when it would be connected to."""
    context, ca, _ = tls
    answers = iter([["8.8.8.8"], ["127.0.0.1"], ["8.8.8.8", "127.0.0.1"]])
    asked = []

    def changing(host):
        asked.append(host)
        return next(answers)

    guard = Guard(ports=range(1, 65536), lookup=changing)
    asyncio.run(guard.look_up("https://receiver.example/"))
    replies, seen = _exchange(guard, "/", ca=ca, tls=context, requests=2)
    assert len(asked) == 3, "each connection must ask anew, and only once"
    assert [reply.failure.kind for reply in replies] == [FailureKind.FORBIDDEN] * 2
    assert seen == [], "nothing may reach loopback"


def test_each_connection_goes_to_the_very_address_that_was_judged(tls):
    """The second answer must not be asked for at all: one question for one connection."""
    context, ca, _ = tls
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    guard = _Loopback(ports=range(1, 65536), lookup=lambda _host: next(answers))
    (first, second), seen = _exchange(guard, "/", ca=ca, tls=context, requests=2)
    assert first.status == 200
    assert second.failure.kind is FailureKind.FORBIDDEN
    assert len(seen) == 1


def test_a_literal_address_is_judged_though_nothing_is_resolved():
    guard = Guard(ports=range(1, 65536))
    (reply,), seen = _exchange(guard, "/", host="127.0.0.1")
    assert reply.failure.kind is FailureKind.FORBIDDEN
    assert seen == []


def test_the_socket_itself_is_refused_where_the_text_was_not_checked():
    """The last line: aiohttp resolves nothing for an address, so the socket is judged as it is made."""
    accepted = []

    async def handler(reader, writer):
        accepted.append(writer)

    class Unread(Guard):
        def check(self, url):
            return None

    (reply,), _ = _exchange(Unread(), "/", scheme="http", host="127.0.0.1", handler=handler)
    assert reply.status is None
    assert reply.failure is not None
    assert accepted == []


def test_redirects_are_not_followed():
    hits = []

    async def redirecting(reader, writer):
        hits.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    guard = Guard(allow_private=True)
    (reply,), _ = _exchange(guard, "/", scheme="http", host="127.0.0.1", handler=redirecting)
    assert reply.status == 302
    assert len(hits) == 1


def test_no_proxy_of_the_environment_is_used(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    (reply,), seen = _exchange(Guard(allow_private=True), "/hook", scheme="http", host="127.0.0.1")
    assert reply.status == 200
    assert seen[0].startswith(b"POST /hook ")


def test_a_name_server_that_hangs_holds_one_thread_and_ends_in_time(monkeypatch):
    monkeypatch.setattr("roadworthy.http.guard.LOOKUP_TIMEOUT_S", 0.2)
    asked = []

    def hanging(host):
        asked.append(host)
        time.sleep(0.8)
        return ["8.8.8.8"]

    guard = Guard(lookup=hanging)

    async def go():
        begun = time.monotonic()
        done = await asyncio.gather(
            *[guard.look_up("https://slow.example/") for _ in range(40)], return_exceptions=True
        )
        return done, time.monotonic() - begun

    done, took_s = asyncio.run(go())
    assert all(isinstance(each, UnresolvedError) for each in done)
    assert took_s < 0.7
    assert len(asked) == 1
    guard.close()


def test_aiohttp_calls_the_resolver_for_the_family_it_wants():
    guard = Guard(lookup=lambda _host: ["8.8.8.8", "2606:4700::1111"])

    async def go():
        v4 = await guard.resolver.resolve("two.example", 443, socket.AF_INET)
        both = await guard.resolver.resolve("two.example", 443)
        return [each["host"] for each in v4], [each["host"] for each in both]

    assert asyncio.run(go()) == (["8.8.8.8"], ["8.8.8.8", "2606:4700::1111"])
    assert issubclass(type(guard.resolver), aiohttp.abc.AbstractResolver)
    guard.close()

"""Download audio from a URL that a caller gave. Only hosts on the public internet are contacted.

A name is resolved once per connection. All its addresses are checked, and the connection goes to a checked address.
A name whose address changes in between (DNS rebinding) therefore gains nothing. Every redirect passes the same checks.
"""

import ipaddress
import socket
import ssl
import string
import threading
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from urllib.parse import quote, urljoin, urlsplit

import httpcore

from qwen_tts.errors import InvalidRequest

_MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_LONGEST_URL = 8000  # characters: enough for signed URLs, and the request fits into the socket's buffer
_PORTS = {"https": 443, "http": 80}
_HEADERS = (("User-Agent", "qwen-tts"), ("Accept", "*/*"), ("Accept-Encoding", "identity"), ("Connection", "close"))
_MAX_RESOLVERS = 32
_RESOLVERS = threading.BoundedSemaphore(_MAX_RESOLVERS)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Networks that `ipaddress` calls public, at least in some versions of Python.
_NOT_PUBLIC = (
    ipaddress.ip_network("192.0.0.0/24"),  # protocol assignments; Oracle's cloud keeps its metadata service there
    ipaddress.ip_network("192.88.99.0/24"),  # relays of 6to4
    ipaddress.ip_network("168.63.129.16/32"),  # the host, as Azure's virtual machines see it
    ipaddress.ip_network("fec0::/10"),  # site-local
    ipaddress.ip_network("3fff::/20"),  # documentation
)


@dataclass(frozen=True)
class FetchLimits:
    """`timeout_s` bounds the whole fetch, from resolving the first name to the last byte after all redirects."""

    max_bytes: int = 10_000_000
    timeout_s: float = 10.0
    allow_http: bool = False


def fetch(url: str, limits: FetchLimits = FetchLimits()) -> bytes:
    """Return the body of `url`; block for at most `limits.timeout_s`.

    Raises no error but InvalidRequest, with one of the codes
        url_not_allowed   the URL, or one that it redirects to, may not be fetched
        url_fetch_failed  the name does not resolve, no connection, invalid TLS, a status other than 200, out of time
        url_too_large     the body has more than `limits.max_bytes`
    """
    try:
        deadline = time.monotonic() + limits.timeout_s
        here = quote(url, safe=string.punctuation)  # also encodes line breaks
        with httpcore.ConnectionPool(network_backend=_PublicInternet(deadline)) as pool:
            for _ in range(1 + _MAX_REDIRECTS):
                with closing(pool.handle_request(_request(here, limits.allow_http))) as response:
                    headers = {name.lower(): value for name, value in response.headers}
                    if response.status not in _REDIRECTS or b"location" not in headers:
                        return _body(response, headers, limits.max_bytes)
                here = urljoin(here, quote(headers[b"location"], safe=string.punctuation))
            raise _refusal(f"the URL redirects more than {_MAX_REDIRECTS} times")
    except InvalidRequest:
        raise
    except (httpcore.TimeoutException, Empty):  # Empty: no answer from the resolver
        raise _refusal(f"the fetch took longer than {limits.timeout_s:g} s") from None
    except httpcore.ConnectError:  # from start_tls; _PublicInternet handles its own
        raise _refusal("the host offers no TLS connection with a valid certificate") from None
    except Exception:  # httpcore's errors have no common root; some of h11, ssl and urllib pass through it
        raise _refusal("the URL could not be fetched") from None


def _request(url: str, allow_http: bool) -> httpcore.Request:
    """Return the request for `url`. Raises InvalidRequest for a URL that may not be fetched, whatever its host is."""
    try:
        parts = urlsplit(url)
        port = _PORTS.get(parts.scheme) if parts.port is None else parts.port
    except ValueError:
        raise _refusal("the URL is not valid", "url_not_allowed") from None
    if len(url) > _LONGEST_URL:
        raise _refusal(f"the URL is longer than {_LONGEST_URL} characters", "url_not_allowed")
    if parts.scheme != "https" and not (allow_http and parts.scheme == "http"):
        raise _refusal(f"the URL must begin with https://{' or http://' if allow_http else ''}", "url_not_allowed")
    if not parts.hostname or "%" in parts.hostname:  # a zone id, or a name that is not ASCII
        raise _refusal("the URL has no host, or its host is not plain ASCII", "url_not_allowed")
    if "@" in parts.netloc:
        raise _refusal("the URL holds credentials", "url_not_allowed")
    if port is None or (port not in _PORTS.values() and port < 1024):  # mail, file sharing and the like
        raise _refusal("the URL's port must be 80, 443, or at least 1024", "url_not_allowed")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    checked = httpcore.URL(scheme=parts.scheme, host=parts.hostname, port=port, target=target)
    return httpcore.Request("GET", checked, headers=[("Host", parts.netloc), *_HEADERS])


def _body(response: httpcore.Response, headers: dict[bytes, bytes], max_bytes: int) -> bytes:
    if response.status != 200:
        raise _refusal(f"the host answered with status {response.status}")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise _refusal("the host compressed the response, although the request excluded that")
    too_large = _refusal(f"the URL holds more than {max_bytes} bytes", "url_too_large")
    if int(headers.get(b"content-length", 0)) > max_bytes:
        raise too_large
    body = bytearray()
    for chunk in response.iter_stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def _left(deadline: float, at_most: float | None = None) -> float:
    """Return the seconds until the monotonic time `deadline`. Raises httpcore.TimeoutException at or after it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.TimeoutException
    return left if at_most is None else min(left, at_most)


class _PublicInternet(httpcore.NetworkBackend):
    """Connects to public addresses only; Unix sockets are refused by the base class."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _resolve_by(self._deadline, host, port)
        if not addresses:
            raise _refusal("the host's name does not resolve")
        if not all(map(_is_public, addresses)):
            raise _refusal("the host is not on the public internet", "url_not_allowed")
        for index, address in enumerate(addresses):
            # Each address gets a share of the time, because one may swallow packets.
            share = _left(self._deadline, timeout) / (len(addresses) - index)
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return _TimedStream(httpcore.SyncBackend().connect_tcp(address, port, share), self._deadline)
        raise _refusal("the host cannot be connected to")


class _TimedStream(httpcore.NetworkStream):
    """A stream whose operations end by the deadline; none begins after it."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline, timeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            secured = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline, timeout))
        except BaseException:
            self.close()  # httpcore keeps no reference to it
            raise
        return _TimedStream(secured, self._deadline)

    def close(self) -> None:
        self._stream.close()


def _resolve_by(deadline: float, host: str, port: int) -> list[str]:
    """Resolve in a thread, because the system's resolver can be neither interrupted nor given a time limit.

    The thread may outlive its caller. It keeps its place among _MAX_RESOLVERS until it has ended, so that a name server
    that never answers cannot collect threads. Raises httpcore.TimeoutException or Empty at the deadline.
    """
    if not _RESOLVERS.acquire(timeout=_left(deadline)):
        raise httpcore.TimeoutException
    answer: SimpleQueue[list[str]] = SimpleQueue()

    def resolve() -> None:
        try:
            answer.put(_resolve(host, port))
        finally:
            _RESOLVERS.release()

    try:
        threading.Thread(target=resolve, daemon=True).start()
    except RuntimeError:  # the process can have no more threads
        _RESOLVERS.release()
        raise
    return answer.get(timeout=_left(deadline))


def _resolve(host: str, port: int) -> list[str]:
    """Return the numeric addresses of a name, or of an address in any spelling (127.1, 0x7f000001); maybe none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # UnicodeError: a part of the name is empty or too long
        return []
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def _is_public(address: str) -> bool:
    """Return whether a numeric address, and any IPv4 address inside it, is globally routable. Teredo is not."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inside = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip.ipv4_mapped or ip.sixtofour
        ip = inside or ip
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or any(ip in network for network in _NOT_PUBLIC))


def _refusal(reason: str, code: str = "url_fetch_failed") -> InvalidRequest:
    return InvalidRequest(f"ref_audio: {reason}", "ref_audio", code)

"""Fetching what a stranger named: only from the public internet, only so much, and only for so long.

A server on 127.0.0.1 stands for the public internet, through the two functions the module resolves and judges with.
"""

import shutil
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpcore
import pytest

from qwen_tts import fetch as module
from qwen_tts.errors import InvalidRequest
from qwen_tts.fetch import FetchLimits, fetch

NOT_ALLOWED, FAILED, TOO_LARGE = "url_not_allowed", "url_fetch_failed", "url_too_large"
CLIP = bytes(range(256)) * 40
HTTP = FetchLimits(timeout_s=60.0, allow_http=True)
SHORT = FetchLimits(timeout_s=0.5, allow_http=True)
PAUSE_S = 0.1  # between the bytes of a slow server; each alone is far from any time limit

IS_PUBLIC = module._is_public
RESOLVE = module._resolve
SERVER, NOBODY = "127.0.0.1", "127.0.0.3"  # both stand for public addresses; nobody listens at the second

Page = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    server: "Internet"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        self.server.pages[self.path](self)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Internet(ThreadingHTTPServer):
    """The pages it serves, the requests it got, and the names it is known under."""

    daemon_threads = True
    block_on_close = False
    scheme = "http"

    def __init__(self) -> None:
        super().__init__((SERVER, 0), Handler)
        self.pages: dict[str, Page] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.names = {"public.example": [SERVER]}
        self.resolved: list[str] = []

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hung up

    def resolve(self, host: str, port: int) -> list[str]:
        self.resolved.append(host)
        return self.names[host] if host in self.names else RESOLVE(host, port)

    def url(self, path: str = "/clip", host: str = "public.example") -> str:
        return f"{self.scheme}://{host}:{self.server_port}{path}"


def page(body: bytes = CLIP, status: int = 200, **headers: str) -> Page:
    """Header names are written with underscores. Without a length the body ends with the connection."""

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirect(location: str, status: int = 302) -> Page:
    return page(b"", status, Location=location, Set_Cookie="session=1", Content_Length="0")


def drip(head: bytes, one_more: bytes) -> Page:
    def answer(handler: Handler) -> None:
        handler.wfile.write(head)
        while True:
            handler.wfile.write(one_more)
            time.sleep(PAUSE_S)

    return answer


def serve(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    server = Internet()
    server.pages["/clip"] = page(Content_Length=str(len(CLIP)))
    monkeypatch.setattr(module, "_resolve", server.resolve)
    monkeypatch.setattr(module, "_is_public", lambda address: address in (SERVER, NOBODY) or IS_PUBLIC(address))
    for _ in serve(server):
        yield server


def test_a_resolver_that_hangs_keeps_its_place_until_it_ends(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = threading.BoundedSemaphore(2)
    monkeypatch.setattr(module, "_RESOLVERS", places)
    entered, gate = threading.Semaphore(0), threading.Event()

    def hang(host: str, port: int) -> list[str]:
        entered.release()
        assert gate.wait(60)
        return internet.resolve(host, port)

    monkeypatch.setattr(module, "_resolve", hang)
    impatient = replace(HTTP, timeout_s=0.05)
    begun = 0
    while begun < 2:  # on a busy machine the time may be up before a thread begins
        with pytest.raises(InvalidRequest, match=r"took longer than 0\.05 s"):
            fetch(internet.url(), impatient)
        begun += entered.acquire(timeout=0.1)
    with pytest.raises(InvalidRequest, match=r"took longer than 0\.05 s"):
        fetch(internet.url(), impatient)
    assert not entered.acquire(blocking=False), "a third thread began while two hung"
    gate.set()
    assert fetch(internet.url(), HTTP) == CLIP
    for _ in range(2):
        assert places.acquire(timeout=60), "a place was not given back"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate of public.example in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command")
    file = tmp_path_factory.mktemp("tls") / "public.example.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    extension = ["-addext", "subjectAltName=DNS:public.example"]
    outputs = ["-keyout", str(file), "-out", str(file.with_suffix(".crt"))]
    subprocess.run([*command.split(), *extension, *outputs], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + file.with_suffix(".crt").read_bytes())
    return file


@pytest.fixture
def tls_internet(internet: Internet, certificate: Path) -> Internet:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    # The handshake is left to the handler's thread, where its failure is one of a request.
    internet.socket = context.wrap_socket(internet.socket, server_side=True, do_handshake_on_connect=False)
    internet.scheme = "https"
    return internet


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were connected to, were it not for this fixture."""
    tried: list[str] = []

    def connect_tcp(self: httpcore.SyncBackend, host: str, *_: object, **__: object) -> httpcore.NetworkStream:
        tried.append(host)
        raise httpcore.ConnectError

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect_tcp)
    return tried


def refused(url: str, code: str, limits: FetchLimits = HTTP) -> str:
    """The message."""
    with pytest.raises(InvalidRequest) as caught:
        fetch(url, limits)
    assert (caught.value.param, caught.value.code) == ("ref_audio", code), caught.value.message
    return caught.value.message


# What is fetched


def test_a_clip(internet: Internet) -> None:
    assert fetch(internet.url(), HTTP) == CLIP


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(internet: Internet, status: int) -> None:
    internet.pages["/a/relative"] = redirect("sibling?x=1", status)
    internet.pages["/a/sibling?x=1"] = redirect(internet.url(host="other.example"), status)
    internet.names["other.example"] = [SERVER]
    assert fetch(internet.url("/a/relative"), HTTP) == CLIP


def test_a_body_without_a_length_and_one_in_chunks(internet: Internet) -> None:
    internet.pages["/bare"] = page()
    internet.pages["/chunks"] = page(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", Transfer_Encoding="chunked")
    assert fetch(internet.url("/bare"), HTTP) == CLIP
    assert fetch(internet.url("/chunks"), HTTP) == b"abcde"


def test_characters_that_may_not_stand_in_a_url_are_encoded(internet: Internet) -> None:
    internet.pages["/%C3%A9%20%0D%0Aa%2Fb?q=%20"] = page(b"found")
    assert fetch(internet.url("/é \r\na%2Fb?q= "), HTTP) == b"found"


def test_neither_cookies_nor_compression_are_asked_for(internet: Internet) -> None:
    internet.pages["/from"] = redirect("/clip")
    fetch(internet.url("/from"), HTTP)
    for _, headers in internet.seen:
        assert headers["Host"] == f"public.example:{internet.server_port}"
        assert headers["Accept-Encoding"] == "identity"
        assert "Cookie" not in headers


def test_proxies_of_the_environment_are_not_used(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{NOBODY}:9")
    assert fetch(internet.url(), HTTP) == CLIP


def test_the_next_address_is_tried_when_one_is_dead(internet: Internet) -> None:
    internet.names["public.example"] = [NOBODY, SERVER]
    assert fetch(internet.url(), HTTP) == CLIP


# URLs that are refused by their looks


@pytest.mark.parametrize(
    "url",
    [
        "",
        "clip.wav",
        "//public.example/clip",
        "file:///etc/passwd",
        "file://public.example/clip",
        "ftp://public.example/clip",
        "gopher://public.example/_GET",
        "ws://public.example/clip",
        "unix:///var/run/docker.sock",
        "data:audio/wav;base64,AAAA",
        " https://public.example/clip",
        "https:///clip",
        "https:public.example/clip",
        "https://[::1/clip",
        "https://[fe80::1%25lo]/clip",
        "https://[fe80::1%lo]/clip",
        "https://１２７.0.0.1/clip",
        "https://public%2eexample/clip",
        "https://user:password@public.example/clip",
        "https://user@public.example/clip",
        "https://@public.example/clip",
        "https://public.example\\@127.0.0.1/clip",
        "https://public.example:70000/clip",
        "https://public.example:x/clip",
        "https://public.example/" + "a" * 8000,
    ],
)
def test_url_that_is_not_fetched(url: str, no_connections: list[str]) -> None:
    refused(url, NOT_ALLOWED)
    assert no_connections == []


@pytest.mark.parametrize("port", [0, 22, 25, 79, 442, 1023])
def test_ports_of_other_services(port: int, no_connections: list[str]) -> None:
    assert "port" in refused(f"https://93.184.215.14:{port}/clip", NOT_ALLOWED)
    assert no_connections == []


@pytest.mark.parametrize("port", ["", ":", ":80", ":443", ":1024", ":65535"])
def test_ports_that_may_serve_audio(port: str, no_connections: list[str]) -> None:
    refused(f"https://93.184.215.14{port}/clip", FAILED)
    assert no_connections == ["93.184.215.14"]


def test_http_only_when_allowed(internet: Internet) -> None:
    assert "https://" in refused(internet.url(), NOT_ALLOWED, replace(HTTP, allow_http=False))
    assert internet.seen == []


@pytest.mark.parametrize("url", ["https://\ud800.example/", "https://public.example/\udfff", None, 7])
def test_what_is_not_even_text(url: str) -> None:
    refused(url, FAILED)


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255",
        "192.168.0.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1",
        "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "168.63.129.16", "224.0.0.1",
        "239.255.255.255", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254",
        "ff02::1", "ff0e::1", "100::1", "2001:db8::1", "3fff::1", "5f00::1", "4000::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0.0.0.0", "::ffff:224.0.0.1",
        "::127.0.0.1", "::ffff:0:127.0.0.1", "::ffff:168.63.129.16",
        "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::10.0.0.1",
        "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::", "2002:e000:1::",
        "2001:0:4136:e378:8000:63bf:f5ff:fffe", "2001:0:a00:1::1", "2001::1",
    ],
)  # fmt: skip
def test_address_that_is_not_public(address: str) -> None:
    assert not IS_PUBLIC(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8", "93.184.215.14", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::200e",
        "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1",
    ],
)  # fmt: skip
def test_address_that_is_public(address: str) -> None:
    assert IS_PUBLIC(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "127.0.1", "0x7f000001", "0x7f.1", "2130706433", "0177.0.0.1", "017700000001",
        "0.0.0.0", "0", "10.0.0.1", "167772161", "192.168.1.1", "169.254.169.254", "0xa9fea9fe", "2852039166",
        "224.0.0.1", "255.255.255.255", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]", "[::ffff:a9fe:a9fe]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fc00::1]",
        "[fd00:ec2::254]", "[ff02::1]", "localhost",
    ],
)  # fmt: skip
def test_literal_that_is_not_public(host: str, no_connections: list[str]) -> None:
    message = refused(f"https://{host}/clip", NOT_ALLOWED)
    assert message == "ref_audio: the host is not on the public internet"
    assert no_connections == []


@pytest.mark.parametrize("addresses", [["10.0.0.7"], [SERVER, "10.0.0.7"], ["10.0.0.7", SERVER], [SERVER, "fd00::7"]])
def test_name_with_an_address_that_is_not_public(internet: Internet, addresses: list[str]) -> None:
    internet.names["public.example"] = addresses
    assert refused(internet.url(), NOT_ALLOWED) == "ref_audio: the host is not on the public internet"
    assert internet.seen == []


def rebinding(internet: Internet, answers: Iterable[list[str]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that get resolved, each time with the next answer."""
    asked: list[str] = []
    remaining = iter(answers)

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(remaining)

    monkeypatch.setattr(module, "_resolve", resolve)
    return asked


def test_a_name_is_resolved_once_per_connection(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = rebinding(internet, [[SERVER], ["10.0.0.7"]], monkeypatch)
    assert fetch(internet.url(), HTTP) == CLIP
    assert asked == ["public.example"]


def test_a_redirect_to_the_same_name_is_checked_again(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = rebinding(internet, [[SERVER], ["10.0.0.7"]], monkeypatch)
    internet.pages["/from"] = redirect("/clip")
    refused(internet.url("/from"), NOT_ALLOWED)
    assert asked == ["public.example"] * 2
    assert [path for path, _ in internet.seen] == ["/from"]


def test_unix_sockets() -> None:
    with pytest.raises(NotImplementedError):
        module._PublicInternet(time.monotonic() + 1).connect_unix_socket("/var/run/docker.sock")


# Redirects


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.7/clip",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/clip",
        "http://0x7f000002/clip",
        "//127.0.0.2/clip",
        "file:///etc/passwd",
        "ftp://public.example/clip",
        "http://user:password@public.example/clip",
        "http://public.example:22/clip",
    ],
)
def test_redirect_to_where_no_url_may_point(internet: Internet, location: str) -> None:
    internet.pages["/from"] = redirect(location)
    refused(internet.url("/from"), NOT_ALLOWED)
    assert len(internet.seen) == 1


def test_redirect_loop(internet: Internet) -> None:
    internet.pages["/loop"] = redirect("/loop")
    assert "redirects" in refused(internet.url("/loop"), FAILED)
    assert len(internet.seen) == 4


def test_the_fourth_redirect_is_too_many(internet: Internet) -> None:
    for number in range(1, 5):
        internet.pages[f"/{number}"] = redirect(f"/{number - 1}")
    internet.pages["/0"] = page()
    assert fetch(internet.url("/3"), HTTP) == CLIP
    refused(internet.url("/4"), FAILED)


@pytest.mark.parametrize("status", [300, 302, 304])
def test_redirect_without_a_location(internet: Internet, status: int) -> None:
    internet.pages["/from"] = page(b"", status)
    assert str(status) in refused(internet.url("/from"), FAILED)


# Size


def test_too_large_by_its_header(internet: Internet) -> None:
    internet.pages["/large"] = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", b"")
    assert "1000" in refused(internet.url("/large"), TOO_LARGE, replace(HTTP, max_bytes=1000))


def test_too_large_without_a_header(internet: Internet) -> None:
    internet.pages["/bare"] = drip(b"HTTP/1.1 200 OK\r\n\r\n", bytes(100))
    internet.pages["/chunks"] = drip(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"64\r\n" + bytes(100) + b"\r\n"
    )
    refused(internet.url("/bare"), TOO_LARGE, replace(HTTP, max_bytes=1000))
    refused(internet.url("/chunks"), TOO_LARGE, replace(HTTP, max_bytes=1000))


def test_as_large_as_may_be(internet: Internet) -> None:
    assert fetch(internet.url(), replace(HTTP, max_bytes=len(CLIP))) == CLIP
    refused(internet.url(), TOO_LARGE, replace(HTTP, max_bytes=len(CLIP) - 1))


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip"])
def test_compressed_though_asked_not_to(internet: Internet, encoding: str) -> None:
    internet.pages["/bomb"] = page(Content_Encoding=encoding)
    assert "compressed" in refused(internet.url("/bomb"), FAILED)
    internet.pages["/fine"] = page(Content_Encoding="Identity")
    assert fetch(internet.url("/fine"), HTTP) == CLIP


# Time. What is slow here goes on for as long as the fetch does: that it ends is the fetch's doing.


@pytest.mark.parametrize(
    ("head", "one_more"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n", b"a"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"a"),
        (b"HTTP/1.1 200 OK\r\n", b"X-Many: a\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (b"", b""),
    ],
    ids=["body", "chunks", "header", "headers", "informational", "silent"],
)
def test_a_slow_answer(internet: Internet, head: bytes, one_more: bytes) -> None:
    internet.pages["/slow"] = drip(head, one_more)
    assert "longer than 0.5 s" in refused(internet.url("/slow"), FAILED, SHORT)


def test_slow_redirects_share_the_time(internet: Internet) -> None:
    def slow(handler: Handler) -> None:
        time.sleep(0.6 * SHORT.timeout_s)
        redirect("/clip")(handler)

    internet.pages["/first"] = redirect("/second")
    internet.pages["/second"] = slow
    internet.pages["/clip"] = slow
    assert "longer than" in refused(internet.url("/first"), FAILED, SHORT)


@pytest.mark.parametrize("one_more", [b"", b"\0"])
def test_a_slow_tls_handshake(internet: Internet, monkeypatch: pytest.MonkeyPatch, one_more: bytes) -> None:
    class Slow(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"\x16\x03\x03\x40\x00")  # a handshake record of 16 kB, which then drips in
            while True:
                self.request.sendall(one_more)
                time.sleep(PAUSE_S)

    monkeypatch.setattr(internet, "RequestHandlerClass", Slow)
    monkeypatch.setattr(internet, "scheme", "https")
    assert "longer than" in refused(internet.url(), FAILED, SHORT)


def test_a_slow_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        done.wait()
        return []

    monkeypatch.setattr(module, "_resolve", resolve)
    try:
        assert "longer than" in refused("https://public.example/clip", FAILED, SHORT)
    finally:
        done.set()


def test_no_time_at_all(internet: Internet) -> None:
    refused(internet.url(), FAILED, replace(HTTP, timeout_s=0.0))
    assert internet.seen == []


# Failures


@pytest.mark.parametrize("status", [201, 204, 206, 401, 404, 500])
def test_status_other_than_200(internet: Internet, status: int) -> None:
    internet.pages["/clip"] = page(b"", status)
    assert str(status) in refused(internet.url(), FAILED)


def test_connection_refused(internet: Internet) -> None:
    internet.names["public.example"] = [NOBODY]
    message = refused(internet.url(), FAILED)
    assert "connected" in message
    assert NOBODY not in message


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..example", "a" * 64 + ".example", "a b.example", "<>"])
def test_name_that_does_not_resolve(internet: Internet, host: str) -> None:
    internet.names["no-such-host.invalid"] = []  # not left to the resolver, which may be far and slow
    code = NOT_ALLOWED if " " in host else FAILED
    refused(internet.url(host=host), code)


def test_the_systems_resolver_knows_no_such_name() -> None:
    assert RESOLVE("a..example", 443) == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
    ids=["nothing", "not http", "no length", "short", "endless header", "bad location", "another protocol"],
)
def test_nonsense(internet: Internet, answer: bytes) -> None:
    def nonsense(handler: Handler) -> None:
        handler.wfile.write(answer)

    internet.pages["/clip"] = nonsense
    refused(internet.url(), FAILED)


# TLS


@pytest.mark.usefixtures("trusted")
def test_https(tls_internet: Internet) -> None:
    assert fetch(tls_internet.url()) == CLIP


@pytest.mark.usefixtures("trusted")
def test_redirect_from_https_to_http(tls_internet: Internet) -> None:
    tls_internet.pages["/from"] = redirect(tls_internet.url().replace("https:", "http:"))
    assert "https://" in refused(tls_internet.url("/from"), NOT_ALLOWED, replace(HTTP, allow_http=False))
    assert len(tls_internet.seen) == 1


def test_self_signed_certificate(tls_internet: Internet) -> None:
    assert "certificate" in refused(tls_internet.url(), FAILED)
    assert tls_internet.seen == []


@pytest.mark.usefixtures("trusted")
def test_certificate_of_another_host(tls_internet: Internet) -> None:
    tls_internet.names["other.example"] = [SERVER]
    assert "certificate" in refused(tls_internet.url(host="other.example"), FAILED)
    assert tls_internet.seen == []


def test_https_to_a_server_that_speaks_http(internet: Internet) -> None:
    assert "TLS" in refused(internet.url().replace("http:", "https:"), FAILED)

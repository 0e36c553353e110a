"""The service behind TLS: a relay of bytes, with a certificate of the test's own authority."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme


@contextmanager
def encrypted(port: int, authority: Path) -> Iterator[str]:
    """Relay TLS to `port` within the context. Yield the host and port to connect to.

    The certificate to trust is written to `authority`.
    """
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(authority))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    loop = asyncio.new_event_loop()
    relay = _Relay(port)
    server = loop.run_until_complete(asyncio.start_server(relay.serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(relay.end(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Relay:
    def __init__(self, port: int) -> None:
        self._port = port
        self._under_way: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
            await asyncio.gather(_copy(reader, up_writer), _copy(up_reader, writer))
        finally:
            self._under_way.discard(task)

    async def end(self, server: asyncio.Server) -> None:
        server.close()
        await asyncio.gather(*self._under_way)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await target.wait_closed()

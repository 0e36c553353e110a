"""A proxy that makes a server slower: it delays all data by a share of the time since the request arrived.

python -m tests.loadtest.slow_proxy http://127.0.0.1:8000 --port 8002 --slower 1.2
"""

import argparse
import asyncio
import time

import aiohttp
from aiohttp import web


class SlowProxy:
    """A proxy in front of the server at `url`. With `slower` 1.2 everything takes a fifth longer."""

    def __init__(self, url: str, slower: float) -> None:
        self._url = url
        self._slower = slower

    async def forward(self, request: web.Request) -> web.StreamResponse:
        came = time.perf_counter()
        async with (
            aiohttp.ClientSession(self._url) as session,
            session.request(request.method, request.path, data=await request.read(), headers=_kept(request)) as answer,
        ):
            passed_on = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            arrivals = asyncio.Queue[tuple[float, bytes]]()

            async def read() -> None:
                arrivals.put_nowait((time.perf_counter(), b""))  # the headers
                async for data in answer.content.iter_any():
                    arrivals.put_nowait((time.perf_counter(), data))
                arrivals.put_nowait((time.perf_counter(), b""))

            reading = asyncio.create_task(read())
            while True:
                arrived, data = await arrivals.get()
                await asyncio.sleep(self._slower * (arrived - came) - (time.perf_counter() - came))
                if not passed_on.prepared:
                    await passed_on.prepare(request)
                elif not data:
                    break
                await passed_on.write(data)
            await reading
            return passed_on


def _kept(request: web.Request) -> dict[str, str]:
    return {name: request.headers[name] for name in ("Content-Type", "Authorization") if name in request.headers}


def proxy_app(url: str, slower: float) -> web.Application:
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", SlowProxy(url, slower).forward)
    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--port", type=int, default=8002)
    parser.add_argument("--slower", type=float, default=1.2)
    arguments = parser.parse_args()
    web.run_app(proxy_app(arguments.url, arguments.slower), host="127.0.0.1", port=arguments.port, print=None)


if __name__ == "__main__":
    main()

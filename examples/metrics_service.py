"""A service on asyncio, and beside it, on a port of its own, its metrics for Prometheus.

Run it: python examples/metrics_service.py
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

import prometheus_client

from recyclepool import Limits, RecyclePool, metrics

pool = RecyclePool(2, name="words", limits=Limits(tasks=20))  # no thread before the first task


@contextmanager
def served_metrics(port: int) -> Iterator[int]:
    """On this machine only, from a thread of its own: no busy event loop holds it up."""
    metrics.register()  # all pools, those to come too
    server, thread = prometheus_client.start_http_server(port, addr="127.0.0.1")
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    words = await pool.run(len, (await reader.readline()).split())
    writer.write(f"{words}\n".encode())
    writer.close()


async def ask(port: int, line: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{line}\n".encode())
    answer = int(await reader.readline())
    writer.close()
    return answer


async def main() -> None:
    with served_metrics(0) as at:  # it goes last, so that the end of the pool can be watched, too
        async with pool, await asyncio.start_server(serve, "127.0.0.1", 0) as service:
            port = service.sockets[0].getsockname()[1]
            print(await asyncio.gather(*(ask(port, "word " * n) for n in range(1, 6))))
            with await asyncio.to_thread(urlopen, f"http://127.0.0.1:{at}/metrics") as page:
                lines = page.read().decode().splitlines()  # what Prometheus scrapes
    shown = [line for line in lines if line.startswith(("recyclepool_tasks", "recyclepool_worker"))]
    print(f"{len(shown)} lines, among them:", *(line for line in shown if "ok" in line), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())

"""A service on asyncio: the loop stays free, the queue is bounded, each request has its deadline.

Run it: python examples/asyncio_service.py
"""

import asyncio
import time

from recyclepool import Limits, RecyclePool, TaskTimeoutError


def word_count(line: str) -> int:
    """What would block the event loop."""
    if line == "a hard one":
        while True:
            time.sleep(0.01)
    return len(line.split())


class Service:
    def __init__(self, pool: RecyclePool) -> None:
        self.tasks = pool.options(timeout="1s")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode().rstrip()
        try:
            answer = str(await self.tasks.run(word_count, line))  # awaits a place in the queue, too
        except TaskTimeoutError as error:
            answer = f"sorry: {error}"
        writer.write(f"{answer}\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


async def ask(port: int, line: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{line}\n".encode())
    answer = (await reader.readline()).decode().rstrip()
    writer.close()
    await writer.wait_closed()
    return answer


async def main() -> None:
    limits = Limits(tasks=20)  # workers are replaced while it serves
    async with (
        RecyclePool(2, name="service", limits=limits, max_queue=4) as pool,
        await asyncio.start_server(Service(pool).serve, "127.0.0.1", 0) as server,
    ):
        port = server.sockets[0].getsockname()[1]
        answers = await asyncio.gather(*(ask(port, "some words " * n) for n in range(1, 51)))
        print(await ask(port, "a hard one"))
    assert answers == [str(2 * n) for n in range(1, 51)]
    print(f"{len(answers)} answered; workers replaced: {dict(pool.stats().recycles)}")


if __name__ == "__main__":
    asyncio.run(main())

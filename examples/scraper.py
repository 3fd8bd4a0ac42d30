"""Pages are fetched by workers, no more are queued than wanted, and none takes longer than it may.

One page sends a byte now and then for ever: a socket's timeout never sees that, a task's does.
Run it: python examples/scraper.py
"""

import threading
from collections import Counter
from concurrent.futures import Future, as_completed
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

from recyclepool import RecyclePool

closed = threading.Event()


class Site(BaseHTTPRequestHandler):
    """Stands for the network."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>" + self.path.encode())
        with suppress(OSError):  # who asked has gone
            while self.path == "/17" and not closed.wait(0.01):
                self.wfile.write(b".")

    def log_message(self, format: str, *args: object) -> None:
        pass


def fetch(url: str) -> int:
    with urlopen(url, timeout=5) as response:
        return len(response.read())


def scrape(urls: list[str]) -> Counter[str]:
    ends: Counter[str] = Counter()
    tasks: dict[Future[int], str] = {}
    with RecyclePool(4, name="scraper", max_queue=8) as pool:
        for url in urls:  # submit() waits while 8 are queued: the list may be of any length
            tasks[pool.options(timeout="1s").submit(fetch, url)] = url
            assert pool.stats().queued <= 8
        for task in as_completed(tasks):
            error = task.exception()
            ends[f"{tasks[task]}: {error}" if error else "fetched"] += 1
    return ends


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever).start()
        ends = scrape([f"http://127.0.0.1:{server.server_port}/{n}" for n in range(100)])
        closed.set()
        server.shutdown()
    print("\n".join(f"{count:3} {end}" for end, count in ends.items()))
    assert (sum(ends.values()), 0 < ends["fetched"] < 100) == (100, True)

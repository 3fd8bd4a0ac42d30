"""What Prometheus makes of the metrics: its promtool, and a server of its own that scrapes a pool.

Those tests are skipped where they are not installed (in Debian: ``apt-get install prometheus``).
"""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from recyclepool import Limits, RecyclePool, current_worker, metrics

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "docs" / "alerts.yml"
ALERTS_TEST = Path(__file__).parent / "alerts_test.yml"
WAIT = 60.0

PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not installed")

CONFIG = """\
global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}}
rule_files: [{alerts}]
scrape_configs:
  - job_name: pools
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    metrics.register(made)
    return made


@pytest.fixture
def pool() -> Iterator[RecyclePool]:
    """One that has every family."""
    limits = Limits(tasks=10, age="1h", memory="1GiB", pool_memory="100GiB", sample_every=0.05)
    with RecyclePool(2, name="seen", max_queue=100, limits=limits) as made:
        yield made


def use(pool: RecyclePool) -> None:
    """30 tasks that return, 5 that raise."""

    def work() -> None:
        current_worker().cache.setdefault("key", b"value")

    futures = [pool.submit(work) for _ in range(30)] + [pool.submit(divmod, 1, 0) for _ in range(5)]
    for future in futures:
        future.exception(WAIT)


def until(happened: Callable[[], Any], what: str) -> Any:
    """Wait for what another process does; what came of it."""
    deadline, never = time.monotonic() + WAIT, threading.Event()
    while not (found := happened()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        never.wait(0.05)
    return found


def promtool(*args: str, given: str = "") -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *args], input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


# -- promtool -------------------------------------------------------------------------------------


@needs_promtool
def test_promtool_checks_the_metrics(pool, registry):
    """Of a pool in use, and of one that did nothing."""
    use(pool)
    until(lambda: pool.stats().memory, "a look at the process")
    with RecyclePool(70, name="unused"):
        promtool("check", "metrics", given=generate_latest(registry).decode())


@needs_promtool
def test_promtool_finds_what_is_wrong():
    with pytest.raises(AssertionError, match="_total"):
        promtool("check", "metrics", given="# HELP a b\n# TYPE a counter\na 1\n")


@needs_promtool
def test_promtool_checks_the_alerts():
    promtool("check", "rules", str(ALERTS))


@needs_promtool
def test_the_alerts_fire_when_they_should():
    promtool("test", "rules", str(ALERTS_TEST))


# -- the alerts, without it -----------------------------------------------------------------------


def series_names() -> set[str]:
    ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}
    families = metrics.Hub().describe()
    return {family.name + end for family in families for end in ends.get(family.type, [""])}


@pytest.mark.parametrize("path", [ALERTS, ALERTS_TEST], ids=lambda path: path.name)
def test_alerts_name_series_that_there_are(path):
    named = set(re.findall(r"\brecyclepool_\w+", path.read_text()))
    assert len(named) >= 7
    assert named <= series_names()


def test_alerts_name_limits_that_there_are():
    named = set(re.findall(r"Limits\((\w+)=", ALERTS.read_text()))
    assert named >= {"memory", "pool_memory", "task_timeout"}
    assert named <= set(Limits.__dataclass_fields__)


def test_each_alert_is_tested_firing_and_not():
    alerts = re.findall(r"alert: (\w+)", ALERTS.read_text())
    tests = ALERTS_TEST.read_text()
    assert len(alerts) == len(set(alerts)) == 5
    for alert in alerts:
        assert f"alertname: {alert}, exp_alerts: []" in tests, alert
        assert re.search(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels", tests), alert


# -- a server -------------------------------------------------------------------------------------


@contextmanager
def served(registry: CollectorRegistry) -> Iterator[int]:
    """Its metrics on a port of this machine."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(WAIT)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Server:
    """A Prometheus: its HTTP API."""

    def __init__(self, port: int, directory: Path) -> None:
        self._address = f"http://127.0.0.1:{port}"
        self._log = (directory / "log").open("w+")
        assert PROMETHEUS is not None
        self._process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=directory,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def is_ready(self) -> bool:
        assert self._process.poll() is None, self.log()
        try:
            with urlopen(f"{self._address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (HTTPError, URLError, ConnectionError, TimeoutError) as error:
            if isinstance(error, HTTPError):
                error.close()
            return False

    def ask(self, path: str, **words: str) -> Any:
        with urlopen(f"{self._address}/api/v1/{path}?{urlencode(words)}", timeout=10) as answer:
            told = json.loads(answer.read())
        assert told["status"] == "success"
        return told["data"]

    def query(self, expression: str) -> dict[str, float]:
        """The answer's numbers, by the series' own labels."""
        found = self.ask("query", query=expression)["result"]
        usual = {"__name__", "job", "instance", "pool"}
        return {
            ",".join(v for k, v in sorted(each["metric"].items()) if k not in usual): float(
                each["value"][1]
            )
            for each in found
        }

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
        self._log.close()


@contextmanager
def prometheus(directory: Path, port: int) -> Iterator[Server]:
    """One that scrapes that port, and knows the alerts."""
    config = CONFIG.format(alerts=json.dumps(str(ALERTS)), port=port)
    (directory / "prometheus.yml").write_text(config)
    server = Server(free_port(), directory)
    try:
        until(server.is_ready, "Prometheus is ready")
        yield server
    finally:
        server.end()


@needs_prometheus
def test_prometheus_scrapes_a_pool(pool, registry, tmp_path):
    with served(registry) as port, prometheus(tmp_path, port) as server:
        until(lambda: server.query('up{job="pools"}') == {"": 1.0}, "it is scraped")
        use(pool)
        seen = 'recyclepool_tasks_total{pool="seen"}'
        until(lambda: server.query(seen).get("ok") == 30, "its tasks are seen")
        until(lambda: server.query(seen)["error"] == 5, "all of them are")
        outcomes = {"ok", "error", "cancelled", "timeout", "lost", "aborted"}
        assert set(server.query(seen)) == outcomes
        pool.close()
        stats = pool.stats()
        same = {
            "recyclepool_task_run_seconds_count": stats.run.count,
            "recyclepool_task_run_seconds_sum": stats.run.sum,
            "recyclepool_busy_seconds_total": stats.busy_seconds,
            "recyclepool_recycle_seconds_count": stats.recycle.count,
            'recyclepool_cache_requests_total{result="hit"}': stats.cache.hits,
            "sum(recyclepool_recycles_total)": sum(stats.recycles.values()),
            'recyclepool_memory_limit_bytes{kind="worker"}': 2**30,
        }
        for expression, number in same.items():
            until(
                lambda e=expression, n=number: list(server.query(e).values()) == [n],
                f"{expression} is {number}",
            )
        quantile = "histogram_quantile(0.5, recyclepool_task_run_seconds_bucket)"
        (median,) = server.query(quantile).values()
        assert 0 < median < 1
        (info,) = server.ask("query", query="recyclepool_info")["result"]
        assert info["metric"]["backend"] == "thread"


@needs_prometheus
def test_prometheus_evaluates_the_alerts(pool, registry, tmp_path):
    with served(registry) as port, prometheus(tmp_path, port) as server:

        def rules() -> list[dict[str, Any]]:
            (group,) = server.ask("rules")["groups"]
            return list(group["rules"])

        until(lambda: all(rule["health"] == "ok" for rule in rules()), "all are evaluated")
        assert [rule["state"] for rule in rules()] == ["inactive"] * 5
        assert all(rule["annotations"]["summary"] for rule in rules())

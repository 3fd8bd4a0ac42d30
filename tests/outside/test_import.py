"""Nothing happens at import."""

import subprocess
import sys

SCRIPT = """
import os, sys, threading

class Environment(dict):
    def get(self, key, default=None):
        assert not sys._getframe(1).f_globals["__name__"].startswith("recyclepool"), key
        return default
    __getitem__ = get

import concurrent.futures.thread
os.environ = Environment()
import recyclepool
assert threading.active_count() == 1
unwanted = {"psutil", "prometheus_client", "cronsim", "importlib.metadata", "multiprocessing"}
assert not unwanted & set(sys.modules), unwanted & set(sys.modules)
assert recyclepool.__all__ == sorted(recyclepool.__all__)
assert all(hasattr(recyclepool, name) for name in recyclepool.__all__)
"""


def test_no_thread_no_environment_nothing_optional() -> None:
    subprocess.run([sys.executable, "-I", "-c", SCRIPT], check=True, timeout=60)

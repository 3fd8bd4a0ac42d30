"""Pinning. Imports nothing that could start a thread."""

import os


def pin(cores: int) -> None:
    """Keep this thread, and those it starts, on that many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])

"""What was meant by a call whose arguments do not fit: imported when somebody makes one."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["misfit"]

Calls = Mapping[str, Callable[..., Any]]

# Not everybody imports Limits.
_OF_LIMITS = (
    *("tasks", "memory", "memory_hard", "pool_memory", "age", "idle", "task_timeout", "hang"),
    *("memory_samples", "sample_every", "min_age", "jitter", "grace", "start_timeout"),
    *("max_surge", "max_abandoned", "report_only"),
)


def misfit(verb: str, given: Iterable[str], said: str, calls: Calls) -> str:
    """What is wrong with a call of `verb`, of which Python `said` that its arguments do not fit."""
    function = calls[verb]
    known = {p.name: p for p in inspect.signature(function).parameters.values()}
    known.pop("self", None)
    for word in given:
        if word not in known:
            return f"{verb}() has no parameter {word!r}: {_hint(verb, word, list(known), calls)}"
    stars = {word: "*" for word, p in known.items() if p.kind is p.VAR_POSITIONAL}
    values = {word: "=..." for word, p in known.items() if p.default is not p.empty}
    shown = ", ".join(stars.get(word, "") + word + values.get(word, "") for word in known)
    return f"{said}: write {verb}({shown})"


def _hint(verb: str, word: str, known: list[str], calls: Calls) -> str:
    """What was meant by a keyword that is not known: by a typo, by habit, or in another call."""
    of_others = {
        "max_workers": "concurrency max_threads n_jobs nodes num_workers pool_size processes "
        "size threads",
        "max_queue": "max_pending maxsize queue_maxsize queue_size",
        "tasks": "max_requests max_tasks max_tasks_per_child max_tasks_per_worker "
        "maxtasksperchild worker_lifespan worker_max_tasks_per_child",
        "task_timeout": "soft_time_limit task_soft_time_limit task_time_limit time_limit",
    }
    not_here = {
        "chunksize": "each task is one call here: leave it out",
        "mp_context": "the workers are threads: leave it out",
    }
    if word in not_here:
        return not_here[word]
    word = next((ours for ours, theirs in of_others.items() if word in theirs.split()), word)
    own = _nearest(word, known, 0.7)
    if not own:
        where = _where(verb, word, calls)
        if where:
            return f"write {where}"
        own = _nearest(word, known, 0.6)
    near = " or ".join(map(repr, own))
    return f"did you mean {near}?" if own else "known are " + ", ".join(known)


def _nearest(word: str, known: Iterable[str], least: float) -> list[str]:
    likeness = {name: difflib.SequenceMatcher(None, word, name).ratio() for name in known}
    best = max(likeness.values(), default=0.0)
    return [name for name in likeness if likeness[name] == best > least]


def _where(verb: str, word: str, calls: Calls) -> str:
    """The call that has such a parameter: of several the one that is most like `verb`."""
    in_order = ["Limits", "RecyclePool", "options", "map", "map_unordered"]
    in_order += ["wait_idle", "close", "destroy", "shutdown"]
    own = in_order.index(verb) if verb in in_order else 0
    for other in sorted(in_order, key=lambda other: abs(in_order.index(other) - own)):
        known = inspect.signature(calls[other]).parameters if other in calls else _OF_LIMITS
        near = _nearest(word, known, 0.8)
        if near and other != verb:
            written = f"{other}({near[0]}=...)"
            if other == "Limits":
                return f"limits={written}" if verb == "RecyclePool" else written
            return written if other == "RecyclePool" else f"pool.{written}"
    return ""

"""Functions to call wrongly, and the check of what is said then."""

import asyncio
import copy
import functools
import pickle

import pytest
from staging import WAIT

from recyclepool import Limits, RecyclePool, current_worker, per_worker


def f(*args):
    return len(args)


async def co(*args):
    return len(args)


class Service:
    async def ask(self):
        return 1

    async def __call__(self):
        return 1


def with_argument(path):
    return path


def with_keyword(*, path, mode="r"):
    return path, mode


@per_worker
def model():
    return object()


# What the calls in a table are written with.
NAMES = {
    "Limits": Limits,
    "RecyclePool": RecyclePool,
    "Service": Service,
    "WAIT": WAIT,
    "asyncio": asyncio,
    "co": co,
    "copy": copy,
    "current_worker": current_worker,
    "f": f,
    "functools": functools,
    "model": model,
    "per_worker": per_worker,
    "pickle": pickle,
    "with_argument": with_argument,
    "with_keyword": with_keyword,
}


def refused(call, error, said, **names):
    """Calling it so raises just that."""
    with pytest.raises(error) as caught:
        eval(call, NAMES | names)
    assert type(caught.value) is error
    assert str(caught.value) == said

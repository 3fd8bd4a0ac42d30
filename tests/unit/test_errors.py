import builtins
import copy
import inspect
import pickle
import queue
import re
from concurrent import futures
from concurrent.futures.thread import BrokenThreadPool

import pytest

import recyclepool
from recyclepool import errors

STANDARD = {
    "PoolClosedError": RuntimeError,
    "QueueFullError": queue.Full,
    "BrokenRecyclePool": BrokenThreadPool,
    "WorkerLostError": futures.BrokenExecutor,
    "WorkerStartError": RuntimeError,
    "OutsideWorkerError": RuntimeError,
    "TaskTimeoutError": TimeoutError,
    "UnitError": ValueError,
}
ALL = [getattr(errors, name) for name in errors.__all__]


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """The tree in the docstring: name -> what it stands under, and the class in parentheses."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    above: list[tuple[int, str]] = []
    for line in inspect.getdoc(errors).split("\n\n")[1].splitlines():
        match = re.fullmatch(r"( *)(\w+)(?: +\(([\w.]+)\))?(?:  +\S.*)?", line)
        assert match, f"this line is no branch: {line!r}"
        indent, name, standard = len(match[1]), match[2], match[3]
        while above and above[-1][0] >= indent:
            above.pop()
        assert name not in tree
        tree[name] = (above[-1][1] if above else None, standard)
        above.append((indent, name))
    return tree


def test_the_tree_is_as_drawn():
    tree = drawn()
    assert [name for name in tree if not hasattr(builtins, name)] == sorted(
        errors.__all__, key=list(tree).index
    )
    for name, (parent, standard) in tree.items():
        if parent is None:
            continue
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        assert bases == [parent, *([standard.rpartition(".")[2]] if standard else [])]


def test_each_tells_what_it_stands_for():
    assert all(error.__doc__ and error.__module__ == "recyclepool.errors" for error in ALL)


def test_the_names_are_sorted_and_public():
    public = [
        n for n, v in vars(errors).items() if inspect.isclass(v) and v.__module__ == errors.__name__
    ]
    assert errors.__all__ == sorted(public)
    assert all(getattr(recyclepool, name) is getattr(errors, name) for name in errors.__all__)


@pytest.mark.parametrize("name", STANDARD)
def test_each_is_also_the_standard_class(name):
    error = getattr(errors, name)
    assert issubclass(error, STANDARD[name])
    assert issubclass(error, errors.RecyclePoolError)
    with pytest.raises(STANDARD[name]):
        raise error("message")


def test_a_stopped_task_is_not_a_cancelled_one():
    assert issubclass(errors.TaskAbortedError, errors.RecyclePoolError)
    assert not issubclass(errors.TaskAbortedError, futures.CancelledError)


def test_no_except_exception_holds_up_what_ends_a_task():
    assert not issubclass(errors.TaskAbort, Exception)
    assert str(errors.TaskAbort()) == ""


@pytest.mark.parametrize("error", ALL)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_there_and_back_by_pickle(error, protocol):
    before = error("what to do instead")
    after = pickle.loads(pickle.dumps(before, protocol))
    assert type(after) is error
    assert (str(after), after.args) == ("what to do instead", ("what to do instead",))


@pytest.mark.parametrize("error", ALL)
def test_copies(error):
    before = error("message")
    assert copy.copy(before).args == copy.deepcopy(before).args == ("message",)
    assert error().args == ()

"""Where threads are: what is shown of a worker that is stuck, or busy."""

import gc
import sys
from itertools import accumulate, chain, repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traceback import StackSummary
    from types import FrameType

__all__ = ["stack_of", "text_of"]

DEEPEST = 200  # frames that are shown

# There, a collection amid sys._current_frames() can deadlock the process (gh-106883), and one amid
# the walk lets the walked thread run.
COLLECTS_ANYWHERE = sys.version_info < (3, 12)


def stack_of(thread_id: int) -> "StackSummary | None":
    """Where a thread is now: file, line and function of each frame. Reads no file."""
    from traceback import StackSummary

    pause = COLLECTS_ANYWHERE and gc.isenabled()
    if pause:
        gc.disable()
    try:
        frames = _chain(sys._current_frames().get(thread_id))
        if not frames:
            return None
        places = [(frame, frame.f_lineno) for frame in reversed(frames)]
        return StackSummary.extract(places, lookup_lines=False)
    finally:
        if pause:
            gc.enable()


def _chain(frame: "FrameType | None") -> "list[FrameType]":
    """A frame and those that called it, in one C call: their thread must not run meanwhile."""
    frames: list[Any] = []
    if frame is not None:
        steps: Any = chain((frame,), repeat("f_back", DEEPEST))
        try:
            frames.extend(accumulate(steps, getattr))
        except AttributeError:
            pass  # the outermost has None behind it, and None has nothing
    return [frame for frame in frames if frame is not None]


def text_of(stack: "StackSummary | None") -> str:
    """The same as text, innermost call last, with the source lines."""
    if stack is None:
        return ""
    try:
        return "".join(stack.format())
    except Exception:  # a signal handler asks, amid the first import of a module that this needs
        return "".join(f'  File "{f.filename}", line {f.lineno}, in {f.name}\n' for f in stack)

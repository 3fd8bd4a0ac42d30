"""Where threads are: what is shown of a worker that is stuck, or busy."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from traceback import StackSummary

__all__ = ["stack_of", "text_of"]


def stack_of(thread_id: int) -> "StackSummary | None":
    """Where a thread is now: file, line and function of each frame. Reads no file."""
    from traceback import StackSummary, walk_stack

    frame = sys._current_frames().get(thread_id)
    if frame is None:
        return None
    stack = StackSummary.extract(walk_stack(frame), lookup_lines=False)
    stack.reverse()
    return stack


def text_of(stack: "StackSummary | None") -> str:
    """The same as text, innermost call last, with the source lines."""
    return "" if stack is None else "".join(stack.format())

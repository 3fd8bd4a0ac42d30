"""The asynchronous exception itself: `PyThreadState_SetAsyncExc`, through ctypes."""

import ctypes

from recyclepool.errors import TaskAbort

__all__ = ["inject"]

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc


def inject(thread_id: int) -> None:
    """Have TaskAbort raised in a thread of this interpreter. With that worker's gate held."""
    _set_async_exc(ctypes.c_ulong(thread_id), ctypes.py_object(TaskAbort))

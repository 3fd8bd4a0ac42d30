"""The life of one worker's host thread: open, serve, close."""

import threading
from concurrent.futures._base import LOGGER as STANDARD_LOGGER
from time import monotonic
from typing import Protocol

from recyclepool._gate import here
from recyclepool._worker import Worker

__all__ = ["Crew", "drive"]


class Crew(Protocol):
    """What a driver tells the engine. Each of these only leaves an order, and returns."""

    def ready(self, worker: Worker) -> None:
        """It is open, and takes tasks from now on."""

    def start_failed(self, worker: Worker, error: BaseException) -> None:
        """It could not be opened; its thread is about to end."""

    def vacate(self, worker: Worker, lost: BaseException | None) -> None:
        """It takes no further task. Told before its teardown, so that nobody waits for that.

        `lost` is what it died of, if that was not a task's error.
        """

    def undoes_in_haste(self) -> None:
        """The teardown of one begins that is not vacated yet. This takes no time."""

    def teardown_failed(self, worker: Worker, error: BaseException) -> None:
        """Its finalizer or another teardown raised."""

    def left(self, worker: Worker) -> None:
        """Its thread is about to end."""


def drive(worker: Worker, crew: Crew) -> None:
    """Be the thread of `worker`, unless another is already.

    The thread holds the worker's gate from here to its end, except while a task runs (GATE 1). It
    knows the engine, and never the facade: a pool that nobody holds any more is not kept by its
    workers.
    """
    if not worker.board():
        return
    gate = worker.gate
    gate.lock.acquire()
    gate.thread_id = threading.get_ident()
    worker.thread = threading.current_thread()
    here.gate, here.worker, here.crew = gate, worker, crew
    try:
        try:
            worker.backend.open()
        except BaseException as error:
            if worker.forked:
                return
            # Before anybody can see that the pool is broken, as the standard does it.
            _log("Exception in initializer:")
            _close(worker, crew)
            crew.start_failed(worker, error)
            return
        if worker.forked:
            return  # its initializer forked: the worker is the parent's
        lost = None
        if worker.claim_start("driver"):
            crew.ready(worker)
            worker.admission.acquire()
            try:
                worker.backend.serve()
            except BaseException as error:
                lost = error
        if worker.forked:
            return  # so are its queue and its teardown
        if worker.in_haste:  # its memory first: a successor would fill as much again meanwhile
            worker.vacated_at = monotonic()
            worker.undoing = True
            crew.undoes_in_haste()  # its teardown may take no longer than any
            _close(worker, crew)
            if not worker.forked:
                crew.vacate(worker, lost)
        else:
            crew.vacate(worker, lost)
            _close(worker, crew)
        if not worker.forked:
            crew.left(worker)
    finally:
        here.gate = here.worker = here.crew = None
        gate.lock.release()


def _close(worker: Worker, crew: Crew) -> None:
    worker.stopping.set()
    try:
        worker.backend.close()
    except BaseException as error:
        crew.teardown_failed(worker, error)
    worker.backend = None  # which knows the worker: its thread's end frees both


def _log(message: str) -> None:
    """Tell of the exception that is handled. A filter or handler that raises harms no worker."""
    try:
        STANDARD_LOGGER.critical(message, exc_info=True)
    except BaseException:
        pass

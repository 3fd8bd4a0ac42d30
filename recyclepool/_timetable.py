"""What of a pool's schedules is due, and for which slot. It asks no clock.

Times of the calendar are meant for the whole pool, and intervals for each slot at a time of its
own: so not all workers of all pools are replaced at once.
"""

from collections.abc import Collection, Sequence

from recyclepool.schedule import Agenda, Schedule, phase

__all__ = ["Timetable"]

LONGEST_NAP = 60.0  # seconds after which a step of the wall clock has been noticed


class Timetable:
    """Of one pool. One thread at a time: with the engine's lock held."""

    __slots__ = ("_agendas", "_intervals", "_looked", "_name", "_settled", "next_at")

    def __init__(self, schedules: Sequence[Schedule], name: str, now: float) -> None:
        self._name = name
        self._intervals = [one for one in schedules if one.interval is not None]
        calendar = [one for one in schedules if one.interval is None]
        self._agendas: dict[int | None, Agenda] = {None: Agenda(calendar, now)}
        self._looked = now  # when the agendas were last asked
        self._settled = False  # `next_at` is true of all agendas
        self._note_next()

    def meet(self, slots: Collection[int], now: float) -> None:
        """These slots are held. Who holds one from now on has missed nothing."""
        if not self._intervals:
            return
        wanted = {None, *slots}
        if self._settled and self._agendas.keys() == wanted:
            return
        self._settled = False
        for slot in self._agendas.keys() - wanted:
            self._agendas.pop(slot, None)
        for slot in slots:
            if slot not in self._agendas:
                self._agendas[slot] = Agenda(self._intervals, now, phase=phase(self._name, slot))
        self._note_next()

    def due(self, now: float) -> list[tuple[int | None, Schedule]]:
        """What is due at `now`, until `take` is called: for a slot, or for all of them (None)."""
        if self._is_quiet(now):
            return []
        return [(slot, one) for slot, agenda in self._agendas.items() for one in agenda.due(now)]

    def take(self, now: float) -> None:
        """What is due at `now` is done. Apart from `due`, so that none is lost between."""
        if self._is_quiet(now):
            return
        for agenda in self._agendas.values():
            agenda.take(now)
        self._looked = now
        self._note_next()

    def _is_quiet(self, now: float) -> bool:
        """Nothing is due, nor was the clock set back."""
        return self._settled and self._looked <= now < self.next_at

    def delay(self, now: float) -> float:
        """The seconds, of any clock, after which `due` is to be asked: 0, or at most 60.

        No more, because who sleeps by another clock does not notice that the wall clock is set.
        """
        return max(0.0, min(self.next_at - now, LONGEST_NAP))

    def _note_next(self) -> None:
        # By the wall clock. stats() reads it at any time.
        self.next_at = min(agenda.next_at for agenda in self._agendas.values())
        self._settled = True

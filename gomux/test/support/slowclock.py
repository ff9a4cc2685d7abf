"""
A clock that a test advances by single turns of the reactor.
"""

from __future__ import annotations

from twisted.internet.task import Clock


class SlowClock(Clock):
    """
    A clock for simulating slow work: time passes and no call is made.
    """

    def work(self, seconds: float) -> None:
        self.rightNow += seconds

    def turn(self) -> None:
        """
        Make the calls that are due now, as one turn of a reactor does.
        """
        now = self.seconds()
        for call in [call for call in self.calls if call.getTime() <= now]:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)

"""
A clock that a test advances one turn of the reactor at a time.
"""

from __future__ import annotations

from twisted.internet.task import Clock


class SlowClock(Clock):
    """
    A clock that can simulate slow work.
    """

    def work(self, seconds: float) -> None:
        """
        Let time pass without making a call.
        """
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

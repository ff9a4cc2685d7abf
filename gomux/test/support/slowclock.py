"""
A clock of which a test takes one turn of the reactor after another.
"""

from __future__ import annotations

from twisted.internet.task import Clock


class SlowClock(Clock):
    """
    A clock for work that takes time, which calls nothing meanwhile.
    """

    def work(self, seconds: float) -> None:
        self.rightNow += seconds

    def turn(self) -> None:
        """
        Call, as a reactor does in one turn, what is due by now.
        """
        now = self.seconds()
        for call in [call for call in self.calls if call.getTime() <= now]:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)

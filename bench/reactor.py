"""
Run a module on a given reactor: C{python -m bench.reactor NAME MODULE ARGUMENTS}.
"""

from __future__ import annotations

import runpy
import sys


def install(name: str) -> None:
    """
    Install a reactor.

    @param name: C{epoll}, C{asyncio} or C{uvloop}.
    """
    if name == "epoll":
        from twisted.internet import epollreactor

        epollreactor.install()
        return
    from twisted.internet import asyncioreactor

    if name == "uvloop":
        import uvloop

        asyncioreactor.install(uvloop.new_event_loop())
    else:
        asyncioreactor.install()


if __name__ == "__main__":
    install(sys.argv[1])
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

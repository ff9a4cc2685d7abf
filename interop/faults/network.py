"""
Two network namespaces with a link between them that can be cut.  While it is cut,
packets vanish and neither end gets an error.

Root can make network namespaces.  On most systems any other user can too, inside a new
user namespace.  The programs needed are C{unshare} and C{nsenter} of util-linux, and
C{ip} of iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess

HERE, THERE = "10.77.0.1", "10.77.0.2"
"""The addresses of the two ends; they exist only in the namespaces."""

_WIRE = "wire"
_HARDWARE = {HERE: "02:00:00:00:00:01", THERE: "02:00:00:00:00:02"}
_NOBODY = "02:00:00:00:00:ff"

_KINDS = (
    (("--net",), ("--net",)),
    (
        ("--user", "--map-root-user", "--net"),
        ("--preserve-credentials", "--user", "--net"),
    ),
)
"""The options to make and to enter a namespace: as root, and as any other user."""


class CannotMakeNetwork(Exception):
    """
    This machine does not allow network namespaces.
    """


def _run(*command: str) -> None:
    """
    Run a short command.

    @raise CannotMakeNetwork: If it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise CannotMakeNetwork(f"{command[0]}: {done.stderr.strip()}")


def _namespaceOf(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


class _Holder:
    """
    A process that keeps a namespace alive.  It ends when this process ends.

    @ivar pid: The ID of the process.
    """

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            [*command, "sh", "-c", "echo up; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.pid = self._process.pid
        if self._process.stdout.readline() != b"up\n":
            errors = self._process.communicate()[1].decode().strip()
            raise CannotMakeNetwork(errors)
        # The next commands must not change this machine's own network.
        assert _namespaceOf(self.pid) != _namespaceOf("self")

    def close(self) -> None:
        """
        End the process.
        """
        self._process.communicate()


class Network:
    """
    Two namespaces and the link between them.  An end is named by its address.
    """

    def __init__(self) -> None:
        """
        @raise CannotMakeNetwork: If this machine does not allow it.
        """
        for program in ("unshare", "nsenter", "ip"):
            if shutil.which(program) is None:
                raise CannotMakeNetwork(f"there is no program {program}")
        reasons = []
        for make, enter in _KINDS:
            try:
                self._make(make, enter)
            except CannotMakeNetwork as error:
                self.close()
                reasons.append(str(error))
            else:
                return
        raise CannotMakeNetwork("; ".join(reasons))

    def _make(self, make: tuple[str, ...], enter: tuple[str, ...]) -> None:
        self._enter = enter
        self._holders: dict[str, _Holder] = {}
        self._holders[HERE] = _Holder("unshare", *make)
        # Make the second one in the user namespace of the first, if there is one.
        self._holders[THERE] = _Holder(*self.at(HERE), "unshare", "--net")
        peer = ("type", "veth", "peer", "name", _WIRE, "address", _HARDWARE[THERE])
        self._ip(
            *(HERE, "link", "add", "name", _WIRE, "address", _HARDWARE[HERE], *peer),
            *("netns", str(self._holders[THERE].pid)),
        )
        for end in (HERE, THERE):
            self._ip(end, "address", "add", f"{end}/24", "dev", _WIRE)
            self._ip(end, "link", "set", _WIRE, "up")
        self.mend()

    def at(self, end: str) -> tuple[str, ...]:
        """
        Make a prefix for commands that are to run at an end.

        @return: The words to put before the command.
        """
        return ("nsenter", f"--target={self._holders[end].pid}", *self._enter, "--")

    def _ip(self, end: str, *command: str) -> None:
        _run(*self.at(end), "ip", *command)

    def cut(self) -> None:
        """
        Have both ends send to a hardware address that does not exist.
        """
        self._direct(HERE, _NOBODY)
        self._direct(THERE, _NOBODY)

    def mend(self) -> None:
        """
        Have both ends send to each other again.
        """
        self._direct(HERE, _HARDWARE[THERE])
        self._direct(THERE, _HARDWARE[HERE])

    def slow(self, rate: str) -> None:
        """
        Have both ends send slowly, into a queue as long as that of a home router.

        @param rate: such as C{1mbit}, in the words of C{tc}.
        @raise CannotMakeNetwork: If the kernel cannot do that.
        """
        if shutil.which("tc") is None:
            raise CannotMakeNetwork("there is no program tc")
        for end in (HERE, THERE):
            _run(
                *self.at(end),
                *("tc", "qdisc", "add", "dev", _WIRE, "root"),
                *("tbf", "rate", rate, "burst", "16kb", "limit", "1500kb"),
            )

    def _direct(self, end: str, hardware: str) -> None:
        other = THERE if end == HERE else HERE
        self._ip(
            *(end, "neighbour", "replace", other, "lladdr", hardware),
            *("nud", "permanent", "dev", _WIRE),
        )

    def close(self) -> None:
        """
        End the processes that hold the namespaces.  A namespace ends with its last
        process.
        """
        while self._holders:
            self._holders.popitem()[1].close()

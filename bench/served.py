"""
What a server of C{python -m bench.bystander} does with streams: a part of the
line protocol, for C{twistd gomux --factory bench.served.Served}.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol

from bench.load import CHUNK


class Command(Protocol):
    """
    Serves one stream, as its first line says.
    """

    _line: bytes | None = b""

    def dataReceived(self, data: bytes) -> None:
        line, end, rest = ((self._line or b"") + data).partition(b"\n")
        if not end:
            self._line = line
            return
        self._line = None
        if line == b"echo":
            self.transport.registerProducer(self.transport, True)
            self.dataReceived = self.transport.write  # type: ignore[method-assign]
        elif line == b"source":
            self.dataReceived = self._ignore  # type: ignore[method-assign]
            self.transport.registerProducer(self, False)
        else:
            self.dataReceived = self._ignore  # type: ignore[method-assign]
        if rest:
            self.dataReceived(rest)

    def _ignore(self, data: bytes) -> None:
        """
        Be a sink.
        """

    # Of a source

    def resumeProducing(self) -> None:
        """
        Write more of what never ends.
        """
        self.transport.write(CHUNK)

    def stopProducing(self) -> None:
        """
        The stream has ended.
        """


class Served(Factory):
    """
    Makes them.
    """

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return Command()

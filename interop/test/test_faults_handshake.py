"""
Faults and abuse: the strict handshake, with a peer that sends nothing, too little or an
echo.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory

from gomux import Limits
from gomux.error import (
    HandshakeFailed,
)
from interop.faults.attacker import (
    KEEPALIVE,
    PSK,
    Attacker,
)
from interop.faults.cases import (
    CLIENT,
    SERVER,
    FaultTestCase,
    Subject,
    row,
)


class OwnSalt(FaultTestCase):
    """
    The peer does not take part in the handshake.
    """

    @row(45, pairing=CLIENT)
    async def test_echoed(self) -> None:
        """
        A client whose own hello is echoed back ends with an error that says so.
        """

        class Echo(Attacker):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(data)

        echo = Echo(False)
        factory = Factory.forProtocol(lambda: echo)
        subject = Subject(PSK, True, None, strict=True)
        mux = await self.connectTo(self.listen(factory), subject)
        reason = await mux.whenClosed()
        self.assertIsInstance(reason, HandshakeFailed)
        self.assertIn("connected with itself", str(reason))
        self.assertIsInstance(await echo.lost, ConnectionLost)

    @row(35, 45, pairing=SERVER)
    async def test_silent(self) -> None:
        """
        A peer that sends nothing, or less than a hello, is dropped without an answer
        when the handshake times out.
        """
        limits = Limits(handshakeTimeout=0.3)
        subject = Subject(PSK, False, None, strict=True, limits=limits)
        port = self.listen(subject)
        for size in (0, 1, 36, 51):
            attacker = Attacker(True)
            connected = subject.next()
            await self.connectTo(port, Factory.forProtocol(lambda a=attacker: a))
            attacker.transport.write(attacker.frame(KEEPALIVE)[:size])
            self.assertIsInstance(await (await connected).whenClosed(), HandshakeFailed)
            await attacker.lost
            self.assertEqual(attacker.bytesReceived, 0)

"""
Run the example of SECURITY.rst, a mux over TLS, as it is written there.

The tests change only the ports and the machine's name.  They make the certificate
without the C{openssl} program, which may not be installed.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import ssl
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.protocols.wire import Echo

from gomux.test.support.certificates import makePEM
from gomux.test.support.ports import freePort
from interop.faults.cases import App
from interop.support.tunnels import Service, TunnelTestCase, until

TEXT = (Path(__file__).resolve().parent.parent.parent / "SECURITY.rst").read_text()

NAME = "localhost"


def makeCertificate(directory: Path) -> None:
    """
    Make the key and the certificate that the example's C{openssl} command makes.
    """
    key, begin, certificate = makePEM(NAME).partition(b"-----BEGIN CERTIFICATE-----")
    (directory / "inside.key").write_bytes(key)
    (directory / "inside.pem").write_bytes(begin + certificate)


class ExampleTests(TunnelTestCase):
    """
    Run the example's two C{twistd} commands, each in its own directory.
    """

    async def setUp(self) -> None:
        self.ports = {"7000": freePort(), "8080": freePort()}
        served = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(Echo)
        )
        self.addCleanup(served.stopListening)
        self.ports["80"] = served.getHost().port
        self.inside, self.outside = (self.directory(name) for name in ("in", "out"))
        makeCertificate(self.inside)
        (self.outside / "trusted").mkdir()

    def directory(self, name: str) -> Path:
        directory = Path(self.mktemp()).resolve() / name
        directory.mkdir(parents=True)
        psk = directory / "gomux.psk"
        psk.write_text("the pre-shared key of an example\n")
        psk.chmod(0o600)
        return directory

    def trust(self, directory: Path) -> None:
        """
        Make the client trust the certificate in a directory.
        """
        certificate = (directory / "inside.pem").read_bytes()
        (self.outside / "trusted" / "inside.pem").write_bytes(certificate)

    def command(self, option: str, directory: Path) -> Service:
        """
        Start the example's command that has this option.
        """
        [line] = re.findall(
            rf"^    twistd -n (gomux .*{option}.*)$", TEXT, re.MULTILINE
        )
        line = line.replace("inside.example", NAME)
        line = re.sub(
            r"\b(7000|8080|80)\b", lambda match: str(self.ports[match[0]]), line
        )
        # The example's server listens on all addresses; a test must not do that.
        line = line.replace(":certKey=", ":interface=127.0.0.1:certKey=")
        return self.twistd(*shlex.split(line), prefix=("env", "-C", str(directory)))

    def agreed(self) -> str | None:
        """
        @return: the TLS version negotiated with a client that trusts the certificate.
        """
        context = ssl.create_default_context(cafile=str(self.inside / "inside.pem"))
        with socket.create_connection(("127.0.0.1", self.ports["7000"])) as plain:
            with context.wrap_socket(plain, server_hostname=NAME) as carrier:
                return carrier.version()

    async def test_tunnel(self) -> None:
        """
        Data passes through the mux.  The carrier uses TLS 1.3, which makes new keys for
        each connection.
        """
        self.trust(self.inside)
        server = self.command("--listen", self.inside)
        await server.line("--listen ssl:")
        client = self.command("--connect", self.outside)
        await client.line(f"--connect tls:{NAME}:{self.ports['7000']}")
        carrier = TCP4ClientEndpoint(reactor, "127.0.0.1", self.ports["8080"])
        app = await carrier.connect(Factory.forProtocol(App))
        data = os.urandom(1 << 20)
        app.transport.write(data)
        await until(lambda: len(app.received) == len(data), "all is echoed")
        self.assertEqual(app.received, data)
        app.transport.loseConnection()
        await app.lost
        self.assertEqual(await deferToThread(self.agreed), "TLSv1.3")
        for service in (server, client):
            self.assertNotIn("Traceback", service.log)

    async def test_otherCertificate(self) -> None:
        """
        No mux comes up with a server whose certificate the client does not trust.
        """
        makeCertificate(other := self.directory("other"))
        self.trust(other)
        server = self.command("--listen", self.inside)
        await server.line("--listen ssl:")
        client = self.command("--connect", self.outside)
        line = await client.line("the mux to ")
        self.assertIn("certificate verify failed", line)
        self.assertNotIn("connected", server.log)

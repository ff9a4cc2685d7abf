# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
Tests for L{gomux.endpoints._strings}, the strings of endpoints.
"""

from __future__ import annotations

import gc
import os
import socket
from typing import Any
from unittest.mock import patch

from twisted.internet import endpoints, reactor
from twisted.internet.endpoints import (
    clientFromString,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from gomux import MuxClientEndpoint, MuxServerEndpoint
from gomux._wire.salts import processSalts
from gomux.endpoints._strings import _muxes
from gomux.test.support.certificates import NAME, PEM
from gomux.test.support.echo import Asking, Echo
from gomux.test.support.helpers import Recorders
from gomux.test.support.servertls import offerTLSString

PSK = "a key for the strings: it has colons"
WARNING = "psk= in an endpoint string can be read by others; use pskFile="


class ParserTestCase(SynchronousTestCase):
    """
    Provides files with keys and certificates.
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.path = os.path.abspath(self.mktemp()) + ":psk=1"
        self.writePSK(PSK)
        self.psk = f"pskFile={quoteStringArgument(self.path)}"

    def writePSK(self, psk: str, mode: int = 0o600) -> None:
        with open(self.path, "w") as file:
            file.write(psk + "\n")
        os.chmod(self.path, mode)

    def client(self, string: str) -> MuxClientEndpoint:
        endpoint: MuxClientEndpoint = clientFromString(self.reactor, string)
        self.assertIsInstance(endpoint, MuxClientEndpoint)
        return endpoint

    def server(self, string: str) -> MuxServerEndpoint:
        endpoint: MuxServerEndpoint = serverFromString(self.reactor, string)
        self.assertIsInstance(endpoint, MuxServerEndpoint)
        return endpoint

    def connected(self, string: str) -> Any:
        """
        @return: the arguments of the one connection that a client makes.
        """
        connecting = self.client(string).connect(Recorders())
        connecting.addErrback(lambda _: None)
        made = (
            self.reactor.tcpClients,
            self.reactor.unixClients,
            self.reactor.sslClients,
        )
        [arguments] = [one for kind in made for one in kind]
        return arguments

    def listened(self, string: str) -> Any:
        """
        @return: the arguments of the one port that a server makes.
        """
        self.server(string).listen(Recorders())
        made = (
            self.reactor.tcpServers,
            self.reactor.unixServers,
            self.reactor.sslServers,
        )
        [arguments] = [one for kind in made for one in kind]
        return arguments


class ClientTests(ParserTestCase):
    """
    C{gomux:} for clients
    """

    def test_tcp(self) -> None:
        """
        The carrier can be TCP, and the keywords of C{gomux:} can stand anywhere.
        """
        for string in (
            "gomux:tcp:192.0.2.1:7000:{}",
            "gomux:{}:tcp:192.0.2.1:7000",
            "gomux:tcp:{}:192.0.2.1:7000",
            "gomux:tcp:host=192.0.2.1:{}:port=7000",
            "gomux:tcp:port=7000:timeout=7:{}:host=192.0.2.1",
            "GOMUX:TCP:192.0.2.1:{}:port=7000",
        ):
            self.reactor = MemoryReactorClock()
            arguments = self.connected(string.format(self.psk))
            self.assertEqual(arguments[:2], ("192.0.2.1", 7000), string)

    def test_bindAddress(self) -> None:
        """
        Other keywords go to the carrier.
        """
        string = f"gomux:tcp:192.0.2.1:7000:bindAddress=192.0.2.2:{self.psk}"
        self.assertEqual(self.connected(string)[4], ("192.0.2.2", 0))

    def test_ipv6(self) -> None:
        """
        A quoted colon, as in an IPv6 address, does not separate arguments.
        """
        arguments = self.connected(f"gomux:tcp:fe80\\:\\:1:7000:{self.psk}")
        self.assertEqual(arguments[:2], ("fe80::1", 7000))

    def test_unix(self) -> None:
        """
        The carrier can be a UNIX socket with any characters in its path.
        """
        for path in ("/run/mux", "/run/a:b", "/run/a\\b", "/run/a=b", "/run/ä b:=\\"):
            self.reactor = MemoryReactorClock()
            quoted = quoteStringArgument(path).replace("=", "\\=")
            arguments = self.connected(f"gomux:unix:{quoted}:{self.psk}")
            self.assertEqual(arguments[0], path)
            self.reactor = MemoryReactorClock()
            quoted = quoteStringArgument(path)
            arguments = self.connected(f"gomux:unix:path={quoted}:{self.psk}")
            self.assertEqual(arguments[0], path)

    def test_bytes(self) -> None:
        """
        The string can be bytes, which Twisted allows too.
        """
        from gomux.endpoints._strings import parseClient

        endpoint = parseClient(
            self.reactor,
            [b"unix"],
            {"path": b"/run/mux", "psk": b"a key for this test"},
        )
        endpoint.connect(Recorders())
        self.assertEqual(self.reactor.unixClients[0][0], "/run/mux")
        self.assertEqual(len(self.flushWarnings()), 1)

    def test_ssl(self) -> None:
        """
        The carrier can be the older kind of TLS.
        """
        arguments = self.connected(f"gomux:ssl:example.org:7000:{self.psk}")
        self.assertEqual(arguments[:2], ("example.org", 7000))
        self.assertEqual(len(self.reactor.sslClients), 1)

    def test_tls(self) -> None:
        """
        The carrier can be TLS to a host name, around yet another endpoint.
        """
        inner = quoteStringArgument("unix:/run/a\\:b")
        string = f"gomux:tls:example.org:443:endpoint={inner}:{self.psk}"
        self.assertEqual(self.connected(string)[0], "/run/a:b")

    def test_shared(self) -> None:
        """
        Endpoints with the same carrier, key and settings share one mux.  The order of
        their keywords and their C{timeout} do not matter.
        """
        same = [
            self.client(f"gomux:tcp:example.org:7000:bindAddress=192.0.2.2:{self.psk}"),
            self.client(f"gomux:{self.psk}:tcp:example.org:7000:bindAddress=192.0.2.2"),
            self.client(
                f"gomux:tcp:example.org:7000:bindAddress=192.0.2.2:timeout=3:{self.psk}"
            ),
        ]
        for endpoint in same:
            endpoint.connect(Recorders()).addErrback(lambda _: None)
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_notShared(self) -> None:
        """
        Endpoints that differ in carrier, key or settings do not share a mux.
        """
        count = 0
        cores = (self.reactor, MemoryReactorClock())
        for core in cores:
            for setting in (
                *("", ":idleTimeout=7", ":strict=yes", ":strict=1:context=x"),
                *(":strict=yes:strictClock=yes", ":strict=yes:allowSelf=yes"),
            ):
                for host in ("example.org", "example.com"):
                    for psk in (PSK, "another key for this test"):
                        self.writePSK(psk)
                        string = f"gomux:tcp:{host}:7000:{self.psk}{setting}"
                        endpoint = clientFromString(core, string)
                        endpoint.connect(Recorders()).addErrback(lambda _: None)
                        count += 1
        self.assertEqual(sum(len(core.tcpClients) for core in cores), count)

    def test_notKept(self) -> None:
        """
        An unconnected mux is freed together with its endpoints.
        """
        endpoint = self.client(f"gomux:tcp:example.org:7000:{self.psk}")
        self.assertEqual(len(_muxes[self.reactor]), 1)
        del endpoint
        gc.collect()
        self.assertEqual(len(_muxes[self.reactor]), 0)

    def test_timeout(self) -> None:
        """
        C{timeout} is how long to wait for a mux.
        """
        endpoint = self.client(f"gomux:tcp:example.org:7000:timeout=2.5:{self.psk}")
        connecting = endpoint.connect(Recorders())
        self.reactor.advance(2.4)
        self.assertNoResult(connecting)
        self.reactor.advance(0.1)
        self.assertIn(
            "within 2.5 seconds", self.failureResultOf(connecting).getErrorMessage()
        )

    def test_settings(self) -> None:
        """
        C{strict}, C{context} and C{idleTimeout} reach the mux.
        """
        mux = self.client(
            f"gomux:tcp:h:1:strict=Yes:context=a\\:b:idleTimeout=7:{self.psk}"
        )._mux
        self.assertEqual((mux.strict, mux.context), (True, b"a:b"))
        self.assertEqual(mux.idleTimeout, 7)
        mux = self.client(f"gomux:tcp:h:1:strict=no:{self.psk}")._mux
        self.assertEqual((mux.strict, mux.context), (False, b""))


class ServerTests(ParserTestCase):
    """
    C{gomux:} for servers
    """

    def test_tcp(self) -> None:
        """
        The carrier can be TCP, and the keywords of C{gomux:} can stand anywhere.
        """
        for string in (
            "gomux:tcp:7000:interface=192.0.2.1:{}",
            "gomux:{}:tcp:7000:interface=192.0.2.1",
            "gomux:tcp:{}:7000:interface=192.0.2.1",
            "gomux:tcp:interface=192.0.2.1:{}:port=7000",
        ):
            self.reactor = MemoryReactorClock()
            arguments = self.listened(string.format(self.psk))
            self.assertEqual(arguments[0], 7000)
            self.assertEqual(arguments[3], "192.0.2.1")

    def test_tcp6(self) -> None:
        """
        The carrier can be TCP over IPv6.
        """
        string = f"gomux:tcp6:7000:interface=\\:\\:1:{self.psk}"
        self.assertEqual(self.listened(string)[3], "::1")

    def test_unix(self) -> None:
        """
        The carrier can be a UNIX socket.
        """
        arguments = self.listened(f"gomux:unix:/run/a\\:b\\=c:mode=600:{self.psk}")
        self.assertEqual(arguments[0], "/run/a:b=c")
        self.assertEqual(arguments[3], 0o600)

    def test_ssl(self) -> None:
        """
        The carrier can be the older kind of TLS.
        """
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(PEM)
        self.listened(f"gomux:ssl:7000:privateKey={path}:{self.psk}")
        self.assertEqual(len(self.reactor.sslServers), 1)

    def test_tls(self) -> None:
        """
        The carrier can be TLS with a directory of certificates.
        """
        offerTLSString(self)
        path = self.mktemp()
        os.mkdir(path)
        with open(os.path.join(path, f"{NAME}.pem"), "wb") as file:
            file.write(PEM)
        string = f"gomux:tls:{path}:7000:interface=127.0.0.1:{self.psk}"
        self.assertEqual(self.listened(string)[0], 7000)

    def test_haproxy(self) -> None:
        """
        The carrier can be wrapped in the PROXY protocol.
        """
        string = f"gomux:haproxy:tcp:7000:interface=\\:\\:1:{self.psk}"
        arguments = self.listened(string)
        self.assertEqual(arguments[0], 7000)
        self.assertEqual(arguments[3], "::1")

    def test_systemd(self) -> None:
        """
        The carrier can be a socket from systemd.
        """
        listening = socket.socket()
        self.addCleanup(listening.close)
        from twisted.python.systemd import ListenFDs

        daemon = ListenFDs([listening.fileno()], ("mux",))
        for which in ("index=0", "name=mux"):
            with patch.object(endpoints._SystemdParser, "_sddaemon", daemon):
                self.server(f"gomux:systemd:domain=INET:{which}:{self.psk}")
                self.assertRaises(
                    ValueError,
                    self.server,
                    f"gomux:systemd:domain=INET:name=no:{self.psk}",
                )

    def test_settings(self) -> None:
        """
        C{strict} and C{context} reach the muxes.
        """
        endpoint = self.server(f"gomux:tcp:7000:strict=true:context=x:{self.psk}")
        factory = self.successResultOf(endpoint.listen(Recorders())).factory
        self.assertEqual((factory.strict, factory.context), (True, b"x"))
        self.assertFalse(factory.strictClock)
        self.assertIs(factory.salts, processSalts)
        endpoint = self.server(
            f"gomux:tcp:7000:strict=yes:strictClock=yes:allowSelf=yes:{self.psk}"
        )
        factory = self.successResultOf(endpoint.listen(Recorders())).factory
        self.assertTrue(factory.strictClock)
        mux = self.client(f"gomux:tcp:h:1:strict=yes:allowSelf=yes:{self.psk}")._mux
        self.assertFalse(mux.strictClock)
        self.assertNotIn(processSalts, (mux.salts, factory.salts))
        self.assertIsNot(mux.salts, factory.salts)

    def test_keyring(self) -> None:
        """
        The key file of a server can have several keys.
        """
        self.writePSK("one:the first key of two\ntwo:the second key of two")
        endpoint = self.server(f"gomux:tcp:7000:{self.psk}")
        factory = self.successResultOf(endpoint.listen(Recorders())).factory
        self.assertEqual(len(factory.keyring), 2)


class NonsenseTests(ParserTestCase):
    """
    A bad string raises a L{ValueError} that says what is wrong and shows no key.
    """

    def check(self, words: str, string: str, roles: str = "client server") -> None:
        for role in roles.split():
            parse = getattr(self, role)
            error = self.assertRaises(ValueError, parse, string)
            self.assertIn(words, str(error))
            self.assertNotIn("secret", str(error))

    def test_key(self) -> None:
        """
        Exactly one usable key is needed.
        """
        needed = "needs either pskFile= or psk="
        self.check(needed, "gomux:tcp:7000")
        self.check(needed, f"gomux:tcp:7000:psk=secret:{self.psk}")
        self.check("is empty", "gomux:tcp:7000:psk=")
        self.check("No such file", "gomux:tcp:7000:pskFile=/no/such/file")
        self.flushWarnings()

    def test_file(self) -> None:
        """
        A key file that other users can read is refused, unless C{pskFileInsecure}
        allows it.
        """
        self.writePSK("a secret that others can read", 0o644)
        self.check("others can read", f"gomux:tcp:7000:{self.psk}")
        self.server(f"gomux:tcp:7000:{self.psk}:pskFileInsecure=yes")

    def test_short(self) -> None:
        """
        A short key is refused, unless C{allowShortPSK} allows it.
        """
        self.writePSK("fifteen secret.")
        says = "shorter than 16 bytes; make one with python -m gomux genpsk, or give al"
        self.check(says, f"gomux:tcp:7000:{self.psk}")
        self.check(says, "gomux:tcp:7000:psk=fifteen secret.")
        self.check("neither yes", f"gomux:tcp:7000:{self.psk}:allowShortPSK=x")
        self.server(f"gomux:tcp:7000:{self.psk}:allowShortPSK=yes")
        self.flushWarnings()

    def test_colonInKey(self) -> None:
        """
        If a key has a colon without a backslash, the error shows none of it.
        """
        psk = "gomux:tcp:psk=0123456789abcdef"
        self.check("needs a backslash", f"{psk}:secret")
        self.check("strict=... is neither yes", f"{psk}:strict=secret")
        says = "timeout=... is not a number"
        self.check(says, f"{psk}:timeout=secret", "client")
        certificate = "gomux:ssl:443:privateKey=secret:psk=0123456789abcdef"
        self.check("(FileNotFoundError)", certificate, "server")
        self.flushWarnings()

    def test_severalKeys(self) -> None:
        """
        A client may have only one key.
        """
        self.writePSK("one:the first secret of two\ntwo:the second secret of two")
        self.check(
            "one pre-shared key is needed", f"gomux:tcp:h:1:{self.psk}", "client"
        )

    def test_carrier(self) -> None:
        """
        The carrier must be of a known kind, and have all of its arguments and no
        others.
        """
        self.check("has no carrier", f"gomux:{self.psk}")
        self.check("Unknown endpoint type: ", f"gomux:carrierpigeon:7:{self.psk}")
        string = f"gomux:tcp:h:not-a-port:{self.psk}"
        self.check("'tcp:h:not-a-port', after gomux:, is not the string of a", string)
        self.check("of a server endpoint", f"gomux:tcp:{self.psk}", "server")
        self.check("of a client endpoint", f"gomux:tcp:h:{self.psk}", "client")
        self.check("psKfile", f"gomux:tcp:7000:psKfile=x:{self.psk}", "server")
        self.check("'reactor'", f"gomux:tcp:7000:reactor=x:{self.psk}")

    def test_certificate(self) -> None:
        """
        The error about a certificate that cannot be read is the carrier's own, unless
        the string has a key.
        """
        certificate = f"gomux:ssl:443:privateKey=/no/such/file:{self.psk}"
        self.assertRaises(FileNotFoundError, self.server, certificate)
        self.check("timeout", f"gomux:tcp:7000:timeout=1:{self.psk}", "server")

    def test_service(self) -> None:
        """
        A service must have a valid name.  If the string has the key, the error does not
        show the name, because it may be a part of the key.
        """
        for make in (self.client, self.server):
            for name in ("", "unnamed", "a b", 65 * "x"):
                string = f"gomux:tcp:192.0.2.1:7000:{self.psk}:service={name}"
                if make == self.server:
                    string = string.replace("192.0.2.1:", "")
                error = self.assertRaises(ValueError, make, string)
                self.assertIn("is not the name of a service", str(error))
                self.assertIn(repr(name), str(error))
                string = string.replace(self.psk, "psk=a key of 16 bytes")
                error = self.assertRaises(ValueError, make, string)
                self.assertNotIn(repr(name), str(error))
        self.flushWarnings()

    def test_values(self) -> None:
        """
        Each value must be of the keyword's type.
        """
        client = f"gomux:tcp:h:1:{self.psk}:"
        for value in ("soon", "-1", "nan", "inf", ""):
            for keyword in ("timeout", "idleTimeout"):
                words = f"{keyword}={value} is not a number of seconds"
                self.check(words, f"{client}{keyword}={value}", "client")
        for keyword in ("strict", "pskFileInsecure"):
            words = f"{keyword}=perhaps is neither yes nor no"
            self.check(words, f"{client}{keyword}=perhaps")
        for keyword in ("context", "strictClock", "allowSelf"):
            words = f"{keyword}= is of use only with strict=yes"
            self.check(words, f"{client}{keyword}=1")

    def test_warnings(self) -> None:
        """
        A key in the string and a short key cause a warning.
        """
        for parse in (self.client, self.server):
            parse(
                "gomux:tcp:h:1:psk=secret:allowShortPSK=yes"
                if parse == self.client
                else "gomux:tcp:1:psk=secret:allowShortPSK=yes"
            )
            said = [str(warning["message"]) for warning in self.flushWarnings()]
            self.assertEqual(
                said, [WARNING, "the pre-shared key is shorter than 16 bytes"]
            )
        self.client(f"gomux:tcp:h:1:{self.psk}")
        self.assertEqual(self.flushWarnings(), [])


class LiveTests(TestCase):
    """
    A server and a client made from strings talk to each other.
    """

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        os.close(os.open(self.path, os.O_CREAT, 0o600))
        with open(self.path, "w") as file:
            file.write(PSK)

    async def check(self, server: str, client: str) -> None:
        """
        Check that the server echoes the client's data.
        """
        psk = f"pskFile={quoteStringArgument(self.path)}"
        port: Any = await serverFromString(reactor, f"gomux:{server}:{psk}").listen(
            Factory.forProtocol(Echo)
        )
        number = getattr(port.getHost(), "port", 0)
        endpoint: Any = clientFromString(
            reactor, f"gomux:{psk}:{client.format(port=number)}"
        )
        asked: Any = await endpoint.connect(Factory.forProtocol(Asking))
        self.assertEqual(await asked.answer, b"hello")
        await endpoint.close()
        await port.close()

    async def test_tcp(self) -> None:
        """
        Strings work over TCP to an address.
        """
        await self.check("tcp:0:interface=127.0.0.1", "tcp:127.0.0.1:{port}:timeout=20")

    async def test_hostName(self) -> None:
        """
        Strings work over TCP to a host name.
        """
        await self.check("tcp:0:interface=127.0.0.1", "tcp:localhost:{port}")

    async def test_tcp6(self) -> None:
        """
        Strings work over TCP and IPv6.
        """
        await self.check("tcp6:0:interface=\\:\\:1", "tcp:\\:\\:1:{port}")

    async def test_unix(self) -> None:
        """
        Strings work over a UNIX socket.
        """
        await self.check("unix:strings", "unix:strings")

    async def test_tls(self) -> None:
        """
        Strings work over TLS with a verified name.
        """
        offerTLSString(self)
        path = self.mktemp()
        os.mkdir(path)
        with open(os.path.join(path, f"{NAME}.pem"), "wb") as file:
            file.write(PEM)
        inner = quoteStringArgument("tcp:127.0.0.1:")
        await self.check(
            f"tls:{path}:0:interface=127.0.0.1",
            f"tls:{NAME}:443:trustRoots={path}:endpoint={inner}{{port}}",
        )

# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The C{ssh} program connects through a tunnel: from TCP to a stream, which
L{twisted.conch}'s server factory serves.
"""

from __future__ import annotations

import getpass
import os
import shutil
import sys
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.avatar import ConchUser
from twisted.conch.checkers import InMemorySSHKeyDB, SSHPublicKeyChecker
from twisted.conch.interfaces import ISession
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.session import SSHSession
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data
from zope.interface import implementer

from gomux import MuxClientEndpoint, MuxServerEndpoint
from gomux.tunnel import TunnelLimits, target
from interop.support.command import Command
from interop.support.harness import environment
from interop.support.tunnels import (
    ANY,
    Service,
    TunnelTestCase,
    endpoint,
    run,
    until,
)

PSK = b"a key for the tests with ssh"


@implementer(ISession)
class User(ConchUser):
    """
    A user who may run commands.
    """

    process: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.channelLookup[b"session"] = SSHSession

    def execCommand(self, protocol: Any, command: bytes) -> None:
        shell = "/bin/sh"
        self.process = reactor.spawnProcess(
            protocol, shell, [shell, "-c", command], env=os.environ
        )

    def getPty(self, term: Any, windowSize: Any, modes: Any) -> None:
        raise NotImplementedError

    def openShell(self, protocol: Any) -> None:
        raise NotImplementedError

    def windowChanged(self, newWindowSize: Any) -> None:
        pass

    def eofReceived(self) -> None:
        self.process.closeStdin()

    def closed(self) -> None:
        pass


@implementer(IRealm)
class Realm:
    """
    Gives an avatar to each user whom conch has authenticated.
    """

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        return interfaces[0], User(), lambda: None


def makeKey() -> Any:
    return Key(Ed25519PrivateKey.generate())


class SSHMixin(TestCase):
    """
    Serves and runs C{ssh}.
    """

    def makeServer(self, userKey: Any) -> SSHFactory:
        """
        Make conch's server.
        """
        hostKey = makeKey()
        factory = SSHFactory()
        factory.publicKeys = {hostKey.sshType(): hostKey.public()}
        factory.privateKeys = {hostKey.sshType(): hostKey}
        name = getpass.getuser().encode()
        keys = InMemorySSHKeyDB({name: [userKey.public()]})
        factory.portal = Portal(Realm(), [SSHPublicKeyChecker(keys)])
        return factory

    def ssh(self, port: int, identity: str, command: str, data: bytes) -> Command:
        """
        Start C{ssh}.
        """
        return self.sshWith((), ("-p", str(port)), identity, command, data)

    def sshWith(
        self,
        more: tuple[str, ...],
        arguments: tuple[str, ...],
        identity: str,
        command: str,
        data: bytes,
    ) -> Command:
        """
        Start C{ssh}.

        @param more: Further options.
        @param arguments: Further arguments.
        """
        path = shutil.which("ssh")
        assert path is not None, "ssh is needed"
        options = (
            *more,
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            f"UserKnownHostsFile={os.devnull}",
            "LogLevel=ERROR",
        )
        run = Command(data)
        reactor.spawnProcess(
            run,
            path,
            [
                path,
                *(f"-o{option}" for option in options),
                *("-F", os.devnull, "-i", identity, *arguments),
                *(f"{getpass.getuser()}@127.0.0.1", command),
            ],
            env=environment(),
        )
        self.addCleanup(run.end)
        return run

    def secret(self, content: bytes) -> str:
        """
        @return: the path of a file that only its owner can read.
        """
        path = os.path.abspath(self.mktemp())
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
        return path


class SSHTests(SSHMixin):
    """
    C{ssh} with this process as both sides
    """

    timeout = 60

    async def test_command(self) -> None:
        """
        Several C{ssh} processes run commands at the same time, each over a stream of
        its own.  Each command echoes 4 MiB, and its exit status arrives.
        """
        userKey = makeKey()
        carrier: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        server: Any = await MuxServerEndpoint(reactor, carrier, PSK).listen(
            self.makeServer(userKey)
        )
        client = MuxClientEndpoint(
            reactor,
            TCP4ClientEndpoint(reactor, "127.0.0.1", server.getHost().port),
            PSK,
        )
        tunnel = target("ssh", client, reactor, TunnelLimits())
        near: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            tunnel
        )
        identity = self.mktemp()
        with open(os.open(identity, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(userKey.toString("openssh"))
        data = os.urandom(4 * 1024 * 1024)
        runs = [
            self.ssh(near.getHost().port, identity, "cat; exit 7", data)
            for _ in range(3)
        ]
        for one in runs:
            self.assertEqual(await one.ended, 7, one.errors.decode())
            self.assertEqual(one.output, data)
        self.assertEqual(len(server.factory.muxes), 1)
        await near.stopListening()
        await client.close()
        await server.close()

    async def test_proxyCommand(self) -> None:
        """
        C{ssh} runs C{python -m gomux pipe} to reach a service.
        """
        userKey = makeKey()
        key = self.secret(PSK)
        string = f"gomux:tcp:0:interface=127.0.0.1:pskFile={key}:service=ssh"
        endpoint: Any = serverFromString(reactor, string)
        server = await endpoint.listen(self.makeServer(userKey))
        number = server.getHost().port
        string = f"gomux:tcp:127.0.0.1:{number}:pskFile={key}:service=ssh"
        data = os.urandom(4 * 1024 * 1024)
        one = self.sshWith(
            (f"ProxyCommand={sys.executable} -m gomux pipe {string}",),
            (),
            self.secret(userKey.toString("openssh")),
            "cat; exit 7",
            data,
        )
        self.assertEqual(await one.ended, 7, one.errors.decode())
        self.assertEqual(one.output, data)
        self.assertEqual(bytes(one.errors), b"")
        await server.close()

    async def test_services(self) -> None:
        """
        One process serves conch and a web site, each with an endpoint string and a
        service of its own, on one port.  C{ssh} and C{curl} use both over one mux.
        """
        userKey = makeKey()
        files = {"key": PSK, "identity": userKey.toString("openssh")}
        paths = {}
        for name, content in files.items():
            paths[name] = self.mktemp()
            with open(
                os.open(paths[name], os.O_CREAT | os.O_WRONLY, 0o600), "wb"
            ) as file:
                file.write(content)
        root = Resource()
        root.putChild(b"page", Data(b"the page", "text/plain"))
        ports: list[Any] = []
        number = "0"
        for service, factory in (
            ("ssh", self.makeServer(userKey)),
            ("web", Site(root)),
        ):
            string = f"gomux:tcp:0:interface=127.0.0.1:pskFile={paths['key']}"
            endpoint = serverFromString(reactor, f"{string}:service={service}")
            port: Any = await endpoint.listen(factory)
            ports.append(port)
            number = str(port.getHost().port)
        self.assertEqual({port.getHost().port for port in ports}, {int(number)})
        near = []
        for service in ("ssh", "web"):
            string = f"gomux:tcp:127.0.0.1:{number}:pskFile={paths['key']}"
            client: Any = clientFromString(reactor, f"{string}:service={service}")
            tunnel = target(service, client, reactor, TunnelLimits())
            carrier = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
            near.append(await carrier.listen(tunnel))
        numbers = [port.getHost().port for port in near]
        ssh = self.ssh(numbers[0], paths["identity"], "cat; exit 7", b"hello")
        path = shutil.which("curl")
        assert path is not None, "curl is needed"
        curl = Command(b"")
        url = f"http://127.0.0.1:{numbers[1]}/page"
        reactor.spawnProcess(curl, path, [path, "-sS", url], env=os.environ)
        self.addCleanup(curl.end)
        self.assertEqual(await ssh.ended, 7, ssh.errors.decode())
        self.assertEqual(ssh.output, b"hello")
        self.assertEqual(await curl.ended, 0, curl.errors.decode())
        self.assertEqual(curl.output, b"the page")
        self.assertEqual(len(ports[0].factory.muxes), 1)
        for port in near:
            await port.stopListening()
        await client.close()
        for port in ports:
            await port.close()


class PeersTests(SSHMixin, TunnelTestCase):
    """
    C{twistd gomux} with two peers
    """

    timeout = 120

    def serve(self, factory: Any) -> str:
        """
        @return: the endpoint string of a listener of this process.
        """
        listen: Any = reactor
        port = listen.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return endpoint(f"127.0.0.1:{port.getHost().port}")

    def page(self, text: str) -> str:
        root = Resource()
        root.putChild(b"page", Data(text.encode(), "text/plain"))
        return self.serve(Site(root))

    async def test_byName(self) -> None:
        """
        C{ssh} and C{curl} use services by name in both directions, those of the peer
        that is named and of no other, beside streams without a service.
        """
        userKey = makeKey()
        self.identity = self.secret(userKey.toString("openssh"))
        shell = self.serve(self.makeServer(userKey))
        keys = {name: f"the pre-shared key of {name}" for name in ("alice", "bob")}
        ring = "".join(f"{name}:{key}\n" for name, key in keys.items())
        forwards = ("ssh@alice", "web@alice", "web@bob", "none@alice", "@bob", "@alice")
        hub = self.service(
            *("--psk-file", self.secret(ring.encode()), "--listen", ANY),
            *(part for name in forwards for part in ("--forward", f"{name}={ANY}")),
            *("--target", f"web={self.page('of the hub')}", "--target", f"ssh={shell}"),
            *("--target", self.page("unnamed of the hub")),
            *("--allow", "alice=web,unnamed", "--allow", "bob=ssh"),
            psk=None,
        )
        muxes = endpoint(await hub.address("listen"))
        clients = {}
        for name, key in keys.items():
            clients[name] = self.service(
                *("--connect", muxes, "--target", f"web={self.page(f'of {name}')}"),
                *("--target", self.page(f"unnamed of {name}")),
                *("--target", f"ssh={shell}"),
                *("--forward", f"web={ANY}", "--forward", f"ssh={ANY}"),
                *("--forward", ANY),
                psk=key,
            )
        for name, text in (
            ("web@alice", b"of alice"),
            ("web@bob", b"of bob"),
            ("@alice", b"unnamed of alice"),
            ("@bob", b"unnamed of bob"),
            ("none@alice", None),
        ):
            await self.reads(hub, name, text)
        await hub.line("--forward none@alice=")
        self.assertIn("The peer has no such service: none", hub.log)
        await self.reads(clients["alice"], "web", b"of the hub")
        await self.reads(clients["bob"], "web", None)
        self.assertIn("a stream for web: not-allowed", clients["bob"].log)
        await self.reads(clients["alice"], "", b"unnamed of the hub")
        await self.reads(clients["bob"], "", None)
        said = "refused 1 of the peer's streams: the peer may not use streams without"
        await until(lambda: said in hub.log, said)
        await self.runs(hub, "ssh@alice", True)
        await self.runs(clients["bob"], "ssh", True)
        await self.runs(clients["alice"], "ssh", False)
        for client in clients.values():
            self.assertEqual(client.log.count(": connected"), 1)
            self.assertNotIn("Traceback", client.log)
        self.assertNotIn("Traceback", hub.log)

    async def reads(self, service: Service, name: str, text: bytes | None) -> None:
        """
        Check what C{curl} reads through a C{--forward}; C{None} for a reset.
        """
        string = f"{name}={ANY}" if name else ANY
        address = await service.address("forward", string)
        output, errors, status = await run("curl", "-sS", f"http://{address}/page")
        self.assertEqual(output, text or b"", errors)
        self.assertEqual(status == 0, text is not None)

    async def runs(self, service: Service, name: str, works: bool) -> None:
        """
        Check whether C{ssh} can run a command through a C{--forward}.
        """
        address = await service.address("forward", f"{name}={ANY}")
        port = int(address.rpartition(":")[2])
        ssh = self.ssh(port, self.identity, "cat; exit 7", b"hello")
        self.assertEqual(await ssh.ended, 7 if works else 255, ssh.errors.decode())
        self.assertEqual(ssh.output, b"hello" if works else b"")

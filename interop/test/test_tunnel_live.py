"""
C{twistd gomux} runs as child processes, between real clients and servers.  In some
tests the Go reference is one end of the tunnel.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath

from gomux.test.support.ports import freePort
from interop.support.ending import Ending
from interop.support.harness import (
    GO_PEER,
    ROOT,
    TWISTD,
    Peer,
    whyMissing,
)
from interop.support.tunnels import (
    ANY,
    MIB,
    PSK,
    Service,
    TunnelTestCase,
    endpoint,
    run,
    sleep,
    until,
)


class FetchTests(TunnelTestCase):
    """
    Fetch files through a tunnel.
    """

    async def test_forward(self) -> None:
        """
        One large file and fifty concurrent copies of a smaller file arrive unchanged.
        Afterwards both processes have as many descriptors open as before.
        """
        web = await self.serveFiles(64 * MIB)
        server, client, address = await self.forwarding(web)
        await self.fetch(address, self.small)
        before = await self.settled(server, client)
        await self.fetchFiles(address)
        await until(
            lambda: (server.descriptors(), client.descriptors()) == before,
            f"descriptors are again {before}",
        )
        for service in (server, client):
            self.assertNotIn("cut short", service.log)
            self.assertNotIn("Traceback", service.log)

    async def test_strict(self) -> None:
        """
        A large file arrives unchanged in strict mode.
        """
        web, path = await self.webServer(64 * MIB)
        _, _, address = await self.forwarding(web, "--strict")
        await self.fetch(address, path)

    async def test_reverse(self) -> None:
        """
        Files arrive unchanged when the listening side forwards, and two clients with a
        target are connected to it.
        """
        web, path = await self.webServer(64 * MIB)
        server = self.service("--listen", ANY, "--forward", ANY)
        muxes = await server.address("listen")
        address = await server.address("forward")
        for _ in range(2):
            client = self.service(
                *("--connect", endpoint(muxes), "--target", endpoint(web))
            )
            await client.line(f"--connect {endpoint(muxes)}: connected")
        await gatherResults(
            [Deferred.fromCoroutine(self.fetch(address, path)) for _ in range(8)]
        )

    async def test_unixSockets(self) -> None:
        """
        A file arrives unchanged when the mux, the forwarding listener and the target
        all use Unix sockets.
        """
        directory = self.mktemp()
        os.mkdir(directory)
        relative = {name: f"{directory}/{name}" for name in ("mux", "here", "there")}
        web, path = await self.webServer(16 * MIB)
        # A second tunnel listens on the target's Unix socket.
        outer = self.service("--listen", ANY, "--target", endpoint(web))
        inner = self.service(
            *("--connect", endpoint(await outer.address("listen"))),
            *("--forward", f"unix:{relative['there']}"),
        )
        await inner.address("forward", f"unix:{relative['there']}")
        server = self.service(
            *("--listen", f"unix:{relative['mux']}"),
            *("--target", f"unix:{relative['there']}"),
        )
        await server.address("listen", f"unix:{relative['mux']}")
        client = self.service(
            *("--connect", f"unix:{relative['mux']}"),
            *("--forward", f"unix:{relative['here']}"),
        )
        await client.address("forward", f"unix:{relative['here']}")
        url = "http://localhost/file"
        command = f"curl -sSf --unix-socket {relative['here']} {url} | cmp - {path}"
        output, errors, status = await run("sh", "-c", command)
        self.assertEqual((output, errors, status), (b"", b"", 0))


class GoTests(TunnelTestCase):
    """
    The Go reference is one end of the tunnel.
    """

    skip = whyMissing("go")

    def go(self, *options: str) -> Peer:
        """
        Start the Go tunnel.
        """
        command = [GO_PEER, "--psk", PSK, *options]
        peer: Peer = self.start(Peer(" ".join(options)), command, dict(os.environ))
        return peer

    async def test_goServer(self) -> None:
        """
        Files arrive through a tunnel of this client and a Go server.
        """
        web = await self.serveFiles(16 * MIB)
        server = self.go("--listen", "127.0.0.1:0", "--target", web)
        muxes = await server.line("listening ")
        client = self.service("--connect", endpoint(muxes), "--forward", ANY)
        await self.fetchFiles(await client.address("forward"))

    async def test_goClient(self) -> None:
        """
        Files arrive through a tunnel of a Go client and this server.
        """
        web = await self.serveFiles(16 * MIB)
        server = self.service("--listen", ANY, "--target", endpoint(web))
        muxes = await server.address("listen")
        client = self.go("--connect", muxes, "--forward", "127.0.0.1:0")
        await self.fetchFiles(await client.line("forwarding "))

    async def test_besideStrict(self) -> None:
        """
        One listener serves a Go client and a client in strict mode, each with its own
        key.  A client with the second key that is not in strict mode is refused.
        """
        web = await self.serveFiles(1 * MIB)
        keys = self.mktemp()
        alice = "the pre-shared key of alice"
        with open(keys, "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(f"alice:{alice}\ngo:{PSK}\n")
        server = self.service(
            *("--listen", ANY, "--target", endpoint(web)),
            *("--psk-file", keys, "--strict-peer", "alice"),
            psk=None,
        )
        muxes = await server.address("listen")
        strict = self.service(
            *("--connect", endpoint(muxes), "--forward", ANY, "--strict"), psk=alice
        )
        other = self.go("--connect", muxes, "--forward", "127.0.0.1:0")
        await self.fetchFiles(await strict.address("forward"))
        await self.fetchFiles(await other.line("forwarding "))
        self.service("--connect", endpoint(muxes), psk=alice)
        line = await server.line("the mux from ")
        self.assertIn("not in strict mode", line)

    async def test_goReverse(self) -> None:
        """
        Files arrive when this server forwards and the Go client has the target.
        """
        web = await self.serveFiles(16 * MIB)
        server = self.service("--listen", ANY, "--forward", ANY)
        muxes = await server.address("listen")
        self.go("--connect", muxes, "--target", web)
        await self.fetchFiles(await server.address("forward"))


class Source(Ending):
    """
    Writes zero bytes as fast as the transport accepts them.

    @param limit: How many bytes to write, a multiple of the size of C{CHUNK}.
    @ivar left: How many of these bytes are not written yet.
    @ivar received: How many bytes have arrived.
    @ivar got: Fires when the first data arrives.
    @ivar reason: Fires with the reason when the connection has ended.
    """

    CHUNK = bytes(65536)

    def __init__(self, limit: int) -> None:
        self.left = limit
        self.received = 0
        self.paused = False
        self.reason: Deferred[Any] = Deferred()
        self.got: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        if not self.got.called:
            self.got.callback(None)

    def resumeProducing(self) -> None:
        self.paused = False
        while not self.paused and self.left:
            self.left -= len(self.CHUNK)
            self.transport.write(self.CHUNK)
        if not self.left:
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.left = 0

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Pass the exception as a result: as an errback it would be logged as
        # unhandled if no test waits for it.
        self.reason.callback(reason.value)


class RawTests(TunnelTestCase):
    """
    The test process itself is both the client and the target of the tunnel.
    """

    async def rig(self, *options: str) -> tuple[Service, Service, list[Source], str]:
        """
        Start a target in this process, and a tunnel to it.

        @return: The server, the client, the list of the target's protocols, and the
            address that the client forwards from.
        """
        made: list[Source] = []

        class Sources(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> Source:
                made.append(Source(self.limit))
                return made[-1]

            limit = 0

        self.sources = Sources()
        listening = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await listening.listen(self.sources)
        self.addCleanup(port.stopListening)
        self.port = port
        target = f"127.0.0.1:{port.getHost().port}"
        server, client, address = await self.forwarding(target, *options)
        return server, client, made, address

    async def connect(self, address: str, limit: int = 0) -> Source:
        host, port = address.split(":")
        client = TCP4ClientEndpoint(reactor, host, int(port))
        found: Source = await client.connect(Factory.forProtocol(lambda: Source(limit)))
        self.addCleanup(found.transport.abortConnection)
        return found

    async def test_backpressure(self) -> None:
        """
        While the reader is paused, the memory of both processes grows by less than
        16 MiB, although the writer has a gigabyte to send.  After the reader resumes,
        the whole gigabyte arrives.  This holds in both directions.
        """
        size = 1024 * MIB
        server, client, made, address = await self.rig()
        for download in (True, False):
            before = server.resident(), client.resident()
            self.sources.limit = size if download else 0
            ours = await self.connect(address, 0 if download else size)
            ours.transport.write(b"!")
            while not made:
                await sleep(0.01)
            theirs = made.pop()
            writer, reader = (theirs, ours) if download else (ours, theirs)
            await reader.got
            reader.transport.pauseProducing()
            left = -1
            while left != writer.left:
                left = writer.left
                await sleep(1)
            after = server.resident(), client.resident()
            self.assertGreater(left, 900 * MIB)
            growth = [(b - a) / MIB for a, b in zip(before, after, strict=True)]
            self.assertLess(max(growth), 16, "MiB")
            reader.transport.resumeProducing()
            while reader.received < size:
                await sleep(0.05)
            peak = server.resident(), client.resident()
            growth = [(b - a) / MIB for a, b in zip(before, peak, strict=True)]
            self.assertLess(max(growth), 16, "MiB")
            ours.transport.loseConnection()
            await theirs.reason

    async def test_reset(self) -> None:
        """
        When the target resets its connection in the middle of an answer, the client's
        connection is reset too, and the server logs it.
        """
        server, client, made, address = await self.rig()
        ours = await self.connect(address)
        ours.transport.write(b"!")
        while not made:
            await sleep(0.01)
        made[0].transport.write(b"part of it")
        await ours.got
        made[0].transport.abortConnection()
        reason = await ours.reason
        self.assertIn("non-clean", str(reason))
        await server.line("--target tcp:127.0.0.1:")
        self.assertIn("was cut short by the other side", server.log)

    async def test_killed(self) -> None:
        """
        When either process is killed, the surviving process resets its connections, so
        that unfinished data does not look complete.
        """
        for which in (0, 1):
            *services, made, address = await self.rig()
            ours = await self.connect(address)
            ours.transport.write(b"!")
            await until(lambda: made, "the target is connected")  # noqa: B023
            made[0].transport.write(b"part of it")
            await ours.got
            services[which].signal("KILL")
            left = made[0] if which else ours
            self.assertIn("non-clean", str(await left.reason))

    async def test_refused(self) -> None:
        """
        If nothing listens at the target, the connection is closed and the log names the
        target.
        """
        server, client, made, address = await self.rig()
        target = self.port.getHost().port
        await self.port.stopListening()
        try:
            ours = await self.connect(address)
        except ConnectError:
            # The connection was reset before connect() noticed its success.
            pass
        else:
            await ours.reason
        line = await server.line(f"--target tcp:127.0.0.1:{target}: ")
        self.assertIn("Connection was refused", line)

    async def passes(self, address: str, made: list[Source]) -> None:
        """
        Check that a new connection carries data to the target.
        """
        made.clear()
        ours = await self.connect(address)
        ours.transport.write(b"!")
        await until(lambda: any(s.received for s in made), "a byte comes through")
        ours.transport.abortConnection()
        await ours.reason

    async def test_descriptors(self) -> None:
        """
        A process that has run out of file descriptors refuses new connections.  Once
        descriptors are free again, new connections work.  This is tested at both ends.
        """
        self.sources = None
        made: list[Source] = []
        for limited in ("listen", "connect"):
            limit = ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh"]
            factory = Factory.forProtocol(lambda: made.append(Source(0)) or made[-1])
            listening = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
            port = await listening.listen(factory)
            self.addCleanup(port.stopListening)
            target = f"tcp:127.0.0.1:{port.getHost().port}"
            server = self.service(
                *("--listen", ANY, "--target", target),
                prefix=limit if limited == "listen" else (),
            )
            muxes = endpoint(await server.address("listen"))
            client = self.service(
                *("--connect", muxes, "--forward", ANY),
                prefix=limit if limited == "connect" else (),
            )
            await client.line(f"--connect {muxes}: connected")
            address = await client.address("forward")
            await self.passes(address, made)
            before = await self.settled(server, client)
            ours = []
            refused = 0
            for _ in range(80):
                try:
                    ours.append(await self.connect(address))
                except ConnectError:
                    # The connection was reset before connect() noticed its success.
                    refused += 1
            await until(
                lambda: refused + sum(s.reason.called for s in ours) >= 30,  # noqa: B023
                "connections are refused",
            )
            self.assertFalse(all(source.reason.called for source in ours))
            for source in ours:
                source.transport.abortConnection()
            await until(
                lambda: (server.descriptors(), client.descriptors()) == before,  # noqa: B023
                f"descriptors are again {before}",
            )
            await self.passes(address, made)
            for service in (server, client):
                self.assertNotIn("Unhandled", service.log)

    async def test_terminated(self) -> None:
        """
        After SIGTERM a service refuses new connections, lets the open ones finish, and
        then exits.
        """
        server, client, made, address = await self.rig()
        ours = await self.connect(address)
        ours.transport.write(b"!")
        while not made:
            await sleep(0.01)
        await made[0].got
        client.signal("TERM")
        await client.line("waiting up to 30 seconds for 1 streams to end")
        # The client logs this one reactor turn before it closes its port.
        host, port = address.split(":")

        def isRefused() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex((host, int(port))) != 0

        await until(isRefused, "connections are refused", 5)
        made[0].transport.write(b"the rest" * 100000)
        made[0].transport.loseConnection()
        reason = await ours.reason
        self.assertEqual(ours.received, 800000)
        self.assertIn("cleanly", str(reason))
        await client.exitCode()
        await server.line("the mux from ")
        self.assertIn("The peer closed the mux", server.log)

    async def test_terminatedTooLong(self) -> None:
        """
        After SIGTERM a service waits for open connections only until
        C{--drain-timeout}.  It then resets them, and both ends see that they were cut
        short.
        """
        server, client, made, address = await self.rig("--drain-timeout", "0.5")
        ours = await self.connect(address)
        ours.transport.write(b"!")
        while not made:
            await sleep(0.01)
        await made[0].got
        client.signal("TERM")
        for source in (ours, made[0]):
            reason = await source.reason
            self.assertIn("non-clean", str(reason))
        await client.exitCode()


class ReconnectTests(TunnelTestCase):
    """
    The connection between the two services is lost or cannot be made.
    """

    async def test_restart(self) -> None:
        """
        When the server is killed, open connections fail.  A connection made while the
        server is down waits.  Within 5 seconds of the server's return, the waiting
        connection and a new one both work.
        """
        web, path = await self.webServer(1 * MIB)
        # The file is larger than all buffers on the way to curl together, so curl
        # cannot have all of it when the server is killed.
        large = os.path.join(os.path.dirname(path), "large")
        with open(large, "wb") as file:
            file.truncate(256 * MIB)
        server, client, address = await self.forwarding(web)
        muxes = server.log.split("--listen " + ANY + ": listening on ")[1].split()[0]
        listen = f"tcp:{muxes.split(':')[1]}:interface=127.0.0.1"
        for down in (0.0, 1.0, 6.0):
            under = run(
                *("curl", "-sS", "--limit-rate", "10M", "-o", os.devnull),
                *("-w", "%{size_download}", f"http://{address}/large"),
            )
            await sleep(0.3)
            server.signal("KILL")
            await server.exitCode()
            size, errors, status = await under
            self.assertNotEqual(status, 0, f"{size!r} bytes, {errors!r}")
            waiting = Deferred.fromCoroutine(self.fetch(address, path))
            await sleep(down)
            self.assertFalse(waiting.called)
            server = self.service("--listen", listen, "--target", endpoint(web))
            await server.address("listen", listen)
            started = time.monotonic()
            await self.fetch(address, path)
            await waiting
            self.assertLess(time.monotonic() - started, 5)
        self.assertIn("cannot connect: Connection was refused", client.log)

    async def test_notThere(self) -> None:
        """
        An unreachable peer does not end the service.  The service logs the failure, and
        closes a connection that has waited longer than C{--wait-timeout}.
        """
        client = self.service(
            *("--connect", f"tcp:127.0.0.1:{freePort()}", "--forward", ANY),
            *("--wait-timeout", "1"),
        )
        address = await client.address("forward")
        _, _, status = await run("curl", "-sS", f"http://{address}/")
        self.assertNotEqual(status, 0)
        line = await client.line(f"--forward {ANY}: closed")
        self.assertIn("no mux was up within 1 seconds", line)
        self.assertIn("cannot connect: Connection was refused", client.log)
        self.assertFalse(client.ended.called)


class KeyTests(TunnelTestCase):
    """
    The pre-shared keys of the two sides differ, or a key changes.
    """

    async def assertDiffer(self, *options: str) -> None:
        """
        Check that two services with different keys both report it, that the client
        pauses between its attempts, and that no key appears in a log.
        """
        wrong = "quite another pre-shared key"
        server = self.service("--listen", ANY, *options)
        muxes = endpoint(await server.address("listen"))
        client = self.service("--connect", muxes, "--forward", ANY, *options, psk=wrong)
        line = await client.line("the mux to ")
        self.assertIn("wrong pre-shared key", line)
        line = await server.line("the mux from 127.0.0.1:")
        self.assertIn("ended: A frame did not authenticate", line)
        # The client tries again, with pauses.
        await sleep(3)
        self.assertLess(server.log.count("the mux from"), 15)
        for service in (server, client):
            self.assertNotIn(wrong, service.log)
            self.assertNotIn(PSK, service.log)
            self.assertNotIn("Traceback", service.log)

    async def test_wrong(self) -> None:
        """
        If the keys differ, the client reports a wrong key and the server a frame that
        did not authenticate.
        """
        await self.assertDiffer()

    async def test_wrongStrict(self) -> None:
        """
        In strict mode, too, both sides report that the keys differ.
        """
        await self.assertDiffer("--strict")

    async def test_oneStrict(self) -> None:
        """
        If only one side is in strict mode, no mux comes up, and the strict side says
        why.
        """
        server = self.service("--listen", ANY, "--strict")
        muxes = endpoint(await server.address("listen"))
        client = self.service("--connect", muxes)
        line = await server.line("the mux from ")
        self.assertIn("strict", line)
        await client.line("the mux to ")

    async def test_hangup(self) -> None:
        """
        After SIGHUP the service reads its key file again, and peers with the new key
        can connect.
        """
        path = self.mktemp()
        with open(path, "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(PSK)
        page = ("--factory", "gomux.PageFactory")
        server = self.service("--listen", ANY, *page, "--psk-file", path, psk=None)
        muxes = endpoint(await server.address("listen"))
        other = "the pre-shared key that comes next"
        client = self.service("--connect", muxes, "--forward", ANY, psk=other)
        await client.line("the mux to ")
        with open(path, "w") as file:
            file.write(other)
        server.signal("HUP")
        await server.line("the pre-shared keys were read again")
        url = f"http://{await client.address('forward')}/status.json"
        answer, _, _ = await run(
            "curl", "-sSf", "--retry", "5", "--retry-all-errors", url
        )
        self.assertIn(b'"role": "server"', answer)


class CommandLineTests(TunnelTestCase):
    """
    C{twistd gomux} fails at its start.
    """

    async def assertFails(
        self, *options: str, says: str, psk: str | None = PSK
    ) -> None:
        """
        Check that the service exits with a message, a nonzero status and no traceback.
        """
        service = self.service(*options, psk=psk)
        self.assertNotEqual(await service.exitCode(), 0)
        self.assertIn(says, service.log)
        self.assertNotIn("Traceback", service.log)
        self.assertNotIn(PSK, service.log)

    async def test_options(self) -> None:
        """
        Each wrong option or combination of options fails with a message that names it.
        """
        await self.assertFails(psk=None, says="--psk-file")
        await self.assertFails("--psk", PSK, says="only once")
        await self.assertFails("--listen", "nonsense", says="--listen nonsense: ")
        await self.assertFails("--factory", "no.such", says="--factory no.such: ")
        await self.assertFails(
            *("--factory", "gomux.PageFactory", "--target", "tcp:h:1"),
            says="--target and --factory",
        )
        await self.assertFails("--psk-file", "nowhere", psk=None, says="No such file")
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(PSK)
        os.chmod(path, 0o644)
        await self.assertFails("--psk-file", path, psk=None, says="-insecure")

    async def test_usedPort(self) -> None:
        """
        A port that is already in use fails with a message that names the option.
        """
        with taken() as port:
            used = f"tcp:{port}:interface=127.0.0.1"
            for option in ("listen", "forward"):
                await self.assertFails(
                    *(f"--{option}", used),
                    says=f"error: --{option} {used}: Couldn't listen on 127.0.0.1:",
                )

    async def test_usedPortDaemon(self) -> None:
        """
        If the port of a daemon is in use, the process that started the daemon prints
        the reason and exits with 1.  The log file has the reason too, and no pid file
        is left.
        """
        directory = FilePath(self.mktemp())
        directory.makedirs()
        log = directory.child("log")
        environment = {**os.environ, "GOMUX_PSK": PSK}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
        with taken() as port:
            used = f"tcp:{port}:interface=127.0.0.1"
            output, errors, status = await getProcessOutputAndValue(
                TWISTD[0],
                [
                    *(*TWISTD[1:], "--rundir", directory.path, "--logfile", log.path),
                    *("gomux", "--listen", used),
                ],
                env=environment,
            )
            self.assertEqual(status, 1)
            self.assertIn("Couldn't listen", (output + errors).decode())
            # The daemon logs the reason after it has told the process that started it.
            reason = f"error: --listen {used}: Couldn't listen on 127.0.0.1:"
            await until(
                lambda: reason in log.getContent().decode(), "the log has the reason"
            )
        self.assertNotIn("Traceback", log.getContent().decode())
        self.assertEqual(directory.listdir(), ["log"])


@contextmanager
def taken() -> Iterator[int]:
    """
    Listen on a port, and give its number.
    """
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]

"""
C{twistd gomux} as processes, between real clients and servers, and beside the
Go reference as a tunnel.
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
    freePort,
    run,
    sleep,
    until,
)


class FetchTests(TunnelTestCase):
    """
    Files through a tunnel.
    """

    async def test_forward(self) -> None:
        """
        A large file comes through as it is, and a smaller one fifty times at once.
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
        The same in strict mode.
        """
        web, path = await self.webServer(64 * MIB)
        _, _, address = await self.forwarding(web, "--strict")
        await self.fetch(address, path)

    async def test_reverse(self) -> None:
        """
        The same where the side that forwards is the one that listens, with two
        peers that take turns.
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
        The same with Unix sockets for mux, listener and target.
        """
        directory = self.mktemp()
        os.mkdir(directory)
        relative = {name: f"{directory}/{name}" for name in ("mux", "here", "there")}
        web, path = await self.webServer(16 * MIB)
        # What listens at the target's socket is another tunnel.
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
    A Go tunnel at one of the ends.
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
        Files come through to this client from a Go server.
        """
        web = await self.serveFiles(16 * MIB)
        server = self.go("--listen", "127.0.0.1:0", "--target", web)
        muxes = await server.line("listening ")
        client = self.service("--connect", endpoint(muxes), "--forward", ANY)
        await self.fetchFiles(await client.address("forward"))

    async def test_goClient(self) -> None:
        """
        Files come through to a Go client from this server.
        """
        web = await self.serveFiles(16 * MIB)
        server = self.service("--listen", ANY, "--target", endpoint(web))
        muxes = await server.address("listen")
        client = self.go("--connect", muxes, "--forward", "127.0.0.1:0")
        await self.fetchFiles(await client.line("forwarding "))

    async def test_goReverse(self) -> None:
        """
        Files come through from a Go client to this server, which forwards.
        """
        web = await self.serveFiles(16 * MIB)
        server = self.service("--listen", ANY, "--forward", ANY)
        muxes = await server.address("listen")
        self.go("--connect", muxes, "--target", web)
        await self.fetchFiles(await server.address("forward"))


class Source(Ending):
    """
    Offers data without an end, as fast as it is taken.

    @ivar limit: how much.
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
        # Not the failure: nobody may be waiting.
        self.reason.callback(reason.value)


class RawTests(TunnelTestCase):
    """
    Connections that this process itself has, at both ends of a tunnel.
    """

    async def rig(self, *options: str) -> tuple[Service, Service, list[Source], str]:
        """
        @return: server, client, what it connects to, and where it forwards from.
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
        While a reader has stopped, a writer that has a gigabyte for it does not
        fill the memory of either process, in either direction; then all of it
        arrives.
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
        A target that resets its connection in the middle has the client's reset
        as well, and the log of the server says so.
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
        When either process is killed, what was under way looks cut short at the
        end that is left, where nothing but the end itself could tell.
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
        A target that is not there ends the connection, and the log names it.
        """
        server, client, made, address = await self.rig()
        target = self.port.getHost().port
        await self.port.stopListening()
        ours = await self.connect(address)
        await ours.reason
        line = await server.line(f"--target tcp:127.0.0.1:{target}: ")
        self.assertIn("Connection was refused", line)

    async def passes(self, address: str, made: list[Source]) -> None:
        """
        See that a new connection works.
        """
        made.clear()
        ours = await self.connect(address)
        ours.transport.write(b"!")
        await until(lambda: any(s.received for s in made), "a byte comes through")
        ours.transport.abortConnection()
        await ours.reason

    async def test_descriptors(self) -> None:
        """
        Where there are no descriptors left connections are refused, and others
        work as soon as there are some again, at both ends.
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
                    # Reset before it was known here that it had connected.
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
        Told to stop, a service takes no new connections, lets those that are
        open come to their end, and then ends itself.
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
        A service told to stop waits only up to its limit: connections still open then
        are cut short, visibly at both ends.
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
    Links that are lost.
    """

    async def test_restart(self) -> None:
        """
        When the server is killed, connections fail; those that are made while
        it is down wait, and work when it is back, as does the next one, all
        within 5 seconds.
        """
        web, path = await self.webServer(1 * MIB)
        # More than all buffers on the way to curl hold: it cannot have all of it.
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
        An unreachable peer does not end the service.  The log reports it, and a
        connection that waited too long is closed.
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
    Pre-shared keys that are wrong, or change.
    """

    async def assertDiffer(self, *options: str) -> None:
        wrong = "quite another pre-shared key"
        server = self.service("--listen", ANY, *options)
        muxes = endpoint(await server.address("listen"))
        client = self.service("--connect", muxes, "--forward", ANY, *options, psk=wrong)
        line = await client.line("the mux to ")
        self.assertIn("wrong pre-shared key", line)
        line = await server.line("the mux from 127.0.0.1:")
        self.assertIn("ended: A frame did not authenticate", line)
        # They go on, but not without a pause.
        await sleep(3)
        self.assertLess(server.log.count("the mux from"), 15)
        for service in (server, client):
            self.assertNotIn(wrong, service.log)
            self.assertNotIn(PSK, service.log)
            self.assertNotIn("Traceback", service.log)

    async def test_wrong(self) -> None:
        """
        If the keys differ both sides say so, in their own words.
        """
        await self.assertDiffer()

    async def test_wrongStrict(self) -> None:
        """
        Also in strict mode.
        """
        await self.assertDiffer("--strict")

    async def test_oneStrict(self) -> None:
        """
        One side in strict mode and the other not do not come together, and the
        strict one says so.
        """
        server = self.service("--listen", ANY, "--strict")
        muxes = endpoint(await server.address("listen"))
        client = self.service("--connect", muxes)
        line = await server.line("the mux from ")
        self.assertIn("strict", line)
        await client.line("the mux to ")

    async def test_hangup(self) -> None:
        """
        On SIGHUP the file is read again: peers with the new key can connect.
        """
        path = self.mktemp()
        with open(path, "w", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(PSK)
        server = self.service("--listen", ANY, "--psk-file", path, psk=None)
        muxes = endpoint(await server.address("listen"))
        other = "the pre-shared key that comes next"
        client = self.service("--connect", muxes, "--forward", ANY, psk=other)
        await client.line("the mux to ")
        with open(path, "w") as file:
            file.write(other)
        server.signal("HUP")
        await server.line("the pre-shared keys were read again")
        url = f"http://{await client.address('forward')}/status.json"
        page, _, _ = await run(
            "curl", "-sSf", "--retry", "5", "--retry-all-errors", url
        )
        self.assertIn(b'"role": "server"', page)


class CommandLineTests(TunnelTestCase):
    """
    What cannot be run.
    """

    async def assertFails(
        self, *options: str, says: str, psk: str | None = PSK
    ) -> None:
        """
        It ends with a message, no traceback, and an exit status that is not 0.
        """
        service = self.service(*options, psk=psk)
        self.assertNotEqual(await service.exitCode(), 0)
        self.assertIn(says, service.log)
        self.assertNotIn("Traceback", service.log)
        self.assertNotIn(PSK, service.log)

    async def test_options(self) -> None:
        """
        Options that make no sense.
        """
        await self.assertFails(psk=None, says="--psk-file")
        await self.assertFails("--psk", PSK, says="only once")
        await self.assertFails("--listen", "nonsense", says="--listen nonsense: ")
        await self.assertFails("--factory", "no.such", says="--factory no.such: ")
        await self.assertFails(
            *("--factory", "a.b", "--target", "tcp:h:1"), says="--target and --factory"
        )
        await self.assertFails("--psk-file", "nowhere", psk=None, says="No such file")
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(PSK)
        os.chmod(path, 0o644)
        await self.assertFails("--psk-file", path, psk=None, says="-insecure")

    async def test_usedPort(self) -> None:
        """
        A port that another process has.
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
        The same for a daemon: the process that started it fails with the reason, which
        is in the log file too, and no pid file is left.
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
    Have a port.
    """
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]

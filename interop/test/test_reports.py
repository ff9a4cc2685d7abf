"""
Faults that users of other multiplexers, of other tunnels and of Twisted reported in
public, tried here as a user would meet them: L{interop.faults.reports} lists them.
"""

from __future__ import annotations

import array
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.protocols.basic import LineReceiver
from zope.interface import implementer

from gomux import MuxClientEndpoint, MuxServerEndpoint
from gomux.test.support.ports import freePort
from interop.faults.cases import CLIENT, SERVER, row
from interop.faults.reports import REPORTS
from interop.support.harness import ROOT, TWISTD, Peer, environment
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

ROOT_ONLY = None if os.geteuid() == 0 else "only root can change name resolution"

#: Runs a command with a file in place of /etc/hosts.
HOSTS = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"']


def report(name: str) -> Callable[[Any], Any]:
    """
    Name the public report that a test tries.  It must be in the list.
    """
    assert name in REPORTS, name

    def mark(method: Any) -> Any:
        method.report = name
        return method

    return mark


@contextmanager
def target(
    handle: Callable[[socket.socket], None], host: str = "127.0.0.1"
) -> Iterator[str]:
    """
    Listen, and run a function in a thread of its own for each connection.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, 0), family=family, backlog=2048)

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                handle(connection)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"{host}:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def connect(address: str) -> socket.socket:
    """
    Connect to C{host:port}, or to a Unix socket.
    """
    if "/" in address:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(address)
        return connection
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), 10)


def isReset(address: str) -> bool:
    """
    Connect, and wait for the end of the connection.

    @return: whether it was reset.  A reset may come before connecting has succeeded.
    """
    try:
        with connect(address) as connection:
            return connection.recv(1) != b""
    except ConnectionResetError:
        return True


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def silent(connection: socket.socket) -> None:
    time.sleep(60)


def at(port: int) -> str:
    """
    @return: the server endpoint string for a port of this machine.
    """
    return f"tcp:{port}:interface=127.0.0.1"


def exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            break
        data += more
    return bytes(data)


def cpu(service: Service) -> float:
    """
    @return: the seconds of CPU time that a service has used.
    """
    with open(f"/proc/{service.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class ReportCase(TunnelTestCase):
    timeout = 120

    def at(self, context: Any) -> Any:
        value = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return value

    async def tunnel(
        self, handle: Callable[[socket.socket], None], *options: str
    ) -> tuple[Service, Service, str]:
        return await self.forwarding(self.at(target(handle)), *options)

    async def assertEchoes(self, address: str, size: int = 1000) -> None:
        def ask() -> bool:
            data = os.urandom(size)
            with connect(address) as connection:
                connection.sendall(data)
                return exactly(connection, size) == data

        self.assertTrue(await deferToThread(ask))

    async def assertIdle(self, *services: Service) -> None:
        before = sum(map(cpu, services))
        await sleep(2)
        self.assertLess(sum(map(cpu, services)) - before, 0.1)

    def hosts(self, *lines: str) -> tuple[str, list[str]]:
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write("\n".join(lines) + "\n")
        return path, [*HOSTS, path]


class DataTests(ReportCase):
    """
    Reports about data that is late, lost or cut.
    """

    @report("openziti/ziti-tunnel-sdk-c #1218")
    async def test_serverSpeaksFirst(self) -> None:
        """
        The first bytes of a server that speaks first arrive.
        """

        def greet(connection: socket.socket) -> None:
            connection.sendall(b"SSH-2.0-test\r\n")
            echo(connection)

        _, _, address = await self.tunnel(greet)

        def ask() -> bytes:
            with connect(address) as connection:
                greeting = exactly(connection, 14)
                connection.sendall(b"!")
                return greeting + exactly(connection, 1)

        self.assertEqual(await deferToThread(ask), b"SSH-2.0-test\r\n!")

    @report("erebe/wstunnel #360")
    async def test_withoutEnd(self) -> None:
        """
        An answer is there in full while the connection stays open.
        """
        sizes = [
            1,
            65535,
            65536,
            65537,
            131071,
            131072,
            131073,
            170000,
            262145,
            3 * MIB,
        ]

        def answer(connection: socket.socket) -> None:
            for size in sizes:
                connection.recv(1)
                connection.sendall(bytes(size))
            time.sleep(30)

        _, _, address = await self.tunnel(answer)

        def ask() -> list[int]:
            with connect(address) as connection:
                got = []
                for size in sizes:
                    connection.sendall(b"!")
                    got.append(len(exactly(connection, size)))
                return got

        self.assertEqual(await deferToThread(ask), sizes)

    @report("mitmproxy/mitmproxy #340")
    async def test_upgrade(self) -> None:
        """
        Data that follows "101 Switching Protocols" at once arrives, and then both sides
        can send.
        """
        fields = b"\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
        head = b"HTTP/1.1 101 Switching Protocols" + fields

        def upgrade(connection: socket.socket) -> None:
            while b"\r\n\r\n" not in connection.recv(4096):
                pass
            connection.sendall(head + b"early")
            echo(connection)

        _, _, address = await self.tunnel(upgrade)

        def ask() -> bytes:
            with connect(address) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x" + fields)
                got = exactly(connection, len(head) + 5)
                connection.sendall(b"later")
                return got + exactly(connection, 5)

        self.assertEqual(await deferToThread(ask), head + b"earlylater")

    @report("fatedier/frp #3645")
    async def test_http2(self) -> None:
        """
        Several HTTP/2 streams without TLS go through at the same time.
        """
        web, path = await self.webServer(8 * MIB)
        directory = os.path.dirname(path)
        port = freePort()
        configuration = os.path.join(directory, "nginx.conf")
        with open(configuration) as file:
            text = (
                file.read()
                .replace(web, f"127.0.0.1:{port} http2")
                .replace("/pid", "/pid2")
            )
        with open(configuration + "2", "w") as file:
            file.write(text)
        self.start(
            Peer("nginx"),
            ["nginx", "-p", directory, "-c", configuration + "2"],
            dict(os.environ),
        )
        await self.connects(port)
        _, _, address = await self.forwarding(f"127.0.0.1:{port}")
        url = f"http://{address}/file"
        outputs = [f"{directory}/got{n}" for n in range(4)]
        ran = await gatherResults(
            [
                run(
                    *("curl", "-sSf", "--http2-prior-knowledge"),
                    *("-w", "%{http_version}"),
                    *(url, "-o", name),
                )
                for name in outputs
            ]
        )
        self.assertEqual(ran, [(b"2", b"", 0)] * 4)
        with open(path, "rb") as file:
            original = file.read()
        for name in outputs:
            with open(name, "rb") as file:
                self.assertTrue(file.read() == original)

    @report("tinyproxy/tinyproxy #79")
    async def test_earlyAnswer(self) -> None:
        """
        A server that refuses an upload at its headers is heard, with and without
        "Expect: 100-continue".
        """
        web, path = await self.webServer(8 * MIB)
        _, _, address = await self.forwarding(web)
        for header in ("Expect: 100-continue", "Expect:"):
            out, errors, status = await run(
                *("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", header),
                *("--data-binary", f"@{path}", f"http://{address}/file"),
            )
            self.assertEqual((out, status), (b"413", 0), errors)

    @report("rekby/lets-proxy #58")
    async def test_continue(self) -> None:
        """
        An upload with "Expect: 100-continue" does not wait for curl's own timeout.
        """

        def accept(connection: socket.socket) -> None:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            exactly(connection, 2 * MIB)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        _, _, address = await self.tunnel(accept)
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(bytes(2 * MIB))
        began = time.monotonic()
        out, errors, status = await run(
            *(
                "curl",
                "-sSf",
                "--expect100-timeout",
                "20",
                "-H",
                "Expect: 100-continue",
            ),
            *("--data-binary", f"@{path}", f"http://{address}/"),
        )
        self.assertEqual((out, errors, status), (b"ok", b"", 0))
        self.assertLess(time.monotonic() - began, 15)

    @row(88, pairing=CLIENT)
    @report("Castaglia/proftpd-mod_proxy #78")
    async def test_urgent(self) -> None:
        """
        TCP urgent data from the client arrives in its place in the stream, and no
        process spins.
        """
        server, client, address = await self.tunnel(echo)

        def ask() -> tuple[bytes, socket.socket]:
            connection = connect(address)
            self.sendUrgent(connection)
            return exactly(connection, 7), connection

        got, connection = await deferToThread(ask)
        self.addCleanup(connection.close)
        await self.assertIdle(server, client)
        self.assertEqual(got, b"abcdefg")

    @row(88, pairing=SERVER)
    @report("tempesta-tech/tempesta #873")
    async def test_urgentFromTarget(self) -> None:
        """
        TCP urgent data from the target arrives in its place in the stream.
        """
        _, _, address = await self.tunnel(self.sendUrgent)

        def ask() -> bytes:
            with connect(address) as connection:
                return exactly(connection, 7)

        self.assertEqual(await deferToThread(ask), b"abcdefg")

    def sendUrgent(self, connection: socket.socket) -> None:
        """
        Send seven bytes, of which the fourth is urgent.
        """
        connection.sendall(b"abc")
        connection.send(b"d", socket.MSG_OOB)
        connection.sendall(b"efg")

    @report("pahaz/sshtunnel #246")
    async def test_smallRequests(self) -> None:
        """
        Chatty requests on one connection, each written in two parts, do not wait for
        delayed acknowledgements.
        """

        def answer(connection: socket.socket) -> None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while exactly(connection, 20):
                connection.sendall(b"head")
                connection.sendall(bytes(2048))

        _, _, address = await self.tunnel(answer)

        def ask() -> float:
            with connect(address) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                began = time.monotonic()
                for _ in range(50):
                    connection.sendall(bytes(10))
                    connection.sendall(bytes(10))
                    assert len(exactly(connection, 2052)) == 2052
                return (time.monotonic() - began) / 50

        self.assertLess(await deferToThread(ask), 0.02)


class EndTests(ReportCase):
    """
    Reports about connections that end, half end, or should have ended.
    """

    @report("twisted/twisted #2809")
    async def test_halfClosedIdle(self) -> None:
        """
        Half-closed connections that stay open use no CPU time.
        """
        server, client, address = await self.tunnel(silent)
        ours = [connect(address) for _ in range(20)]
        for connection in ours:
            self.addCleanup(connection.close)
            connection.shutdown(socket.SHUT_WR)
        await sleep(0.5)
        await self.assertIdle(server, client)

    @report("oven-sh/bun #37920")
    async def test_hangup(self) -> None:
        """
        When the client of a Unix socket is gone while the target stays silent, no CPU
        time is used.
        """
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        path = f"{directory}/socket"
        web = self.at(target(silent))
        server = self.service("--listen", ANY, "--target", endpoint(web))
        muxes = endpoint(await server.address("listen"))
        client = self.service("--connect", muxes, "--forward", f"unix:{path}")
        await client.line(f"--connect {muxes}: connected")
        for _ in range(20):
            with connect(path) as connection:
                connection.sendall(b"!")
        await sleep(0.5)
        await self.assertIdle(server, client)

    @report("skycoin/skywire #3923")
    async def test_teardown(self) -> None:
        """
        When the server is killed while streams wait for data, they end, and the client
        uses no CPU time.
        """
        server, client, address = await self.tunnel(silent)
        ours = [connect(address) for _ in range(50)]
        for connection in ours:
            self.addCleanup(connection.close)
        await sleep(0.5)
        server.signal("KILL")

        def ended() -> int:
            count = 0
            for connection in ours:
                connection.settimeout(5)
                try:
                    count += connection.recv(1) == b""
                except ConnectionError:
                    count += 1
            return count

        self.assertEqual(await deferToThread(ended), 50)
        await self.assertIdle(client)

    @report("microsoft/vscode-remote-release #3561")
    async def test_abandonedDownload(self) -> None:
        """
        When the client gives a download up, the server is told within a second, and has
        sent little in between.
        """
        sent = [0]
        over = threading.Event()

        def pour(connection: socket.socket) -> None:
            try:
                while True:
                    sent[0] += connection.send(bytes(65536))
            finally:
                over.set()

        _, _, address = await self.tunnel(pour)

        def abandon() -> tuple[int, bool]:
            with connect(address) as connection:
                exactly(connection, 16 * MIB)
                before = sent[0]
            return before, over.wait(1)

        before, told = await deferToThread(abandon)
        self.assertTrue(told)
        self.assertLess(sent[0] - before, 32 * MIB)

    @report("ronf/asyncssh #823")
    async def test_leavesEarly(self) -> None:
        """
        When the client leaves while the target is still being connected, nothing of the
        connection stays.
        """
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(0)
            port = listening.getsockname()[1]
            address = f"127.0.0.1:{port}"
            fill = []
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
                fill.append(filler)
            await sleep(0.2)
            server, client, forward = await self.forwarding(
                address, "--target-timeout", "2"
            )
            await sleep(0.5)
            before = server.descriptors(), client.descriptors()
            ours = [connect(forward) for _ in range(10)]
            await until(
                lambda: server.descriptors() >= before[0] + 10, "it is dialling"
            )
            for connection in ours:
                connection.close()
            await until(
                lambda: (server.descriptors(), client.descriptors()) == before,
                "the descriptors are back",
                5,
            )
            for filler in fill:
                filler.close()

    @row(89, pairing=SERVER)
    @report("warp-tech/warpgate #2379")
    async def test_healthChecks(self) -> None:
        """
        Health checks that connect and close at once make no warning, and at most one
        line a minute, on any port.
        """
        server, client, address = await self.tunnel(echo)
        muxes = re.search(r"--connect tcp:(\S+):", client.log)
        await self.assertEchoes(address)
        await sleep(0.5)
        for place in (address, muxes[1] if muxes else ""):
            lines = len(server.log.splitlines()) + len(client.log.splitlines())
            for _ in range(30):
                connect(place).close()
            await sleep(0.5)
            after = len(server.log.splitlines()) + len(client.log.splitlines())
            self.assertLessEqual(after - lines, 1, server.log + client.log)
        await self.assertEchoes(address)

    @report("twisted/twisted #7078")
    async def test_goneBeforeRefusal(self) -> None:
        """
        A client that is gone before its target refuses leaves no traceback.
        """
        port = freePort()
        server, client, address = await self.forwarding(f"127.0.0.1:{port}")
        for _ in range(20):
            try:
                connection = connect(address)
            except ConnectionResetError:
                # The refusal came before the client has noticed that it was connected.
                continue
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            )
            connection.close()
        await sleep(0.5)
        self.assertNotIn("Traceback", server.log + client.log)
        self.assertNotIn("Unhandled", server.log + client.log)


class NameTests(ReportCase):
    """
    Reports about names and addresses.
    """

    @row(87, pairing=SERVER)
    @report("localtunnel/localtunnel #474")
    async def test_localhost(self) -> None:
        """
        A target whose name has an IPv4 and an IPv6 address is reached whichever of the
        two it listens on.
        """
        _, prefix = self.hosts("::1 service.test", "127.0.0.1 service.test")
        for host in ("127.0.0.1", "::1"):
            port = self.at(target(echo, host)).rsplit(":", 1)[1]
            name = f"tcp:service.test:{port}"
            server = self.service("--listen", ANY, "--target", name, prefix=prefix)
            muxes = endpoint(await server.address("listen"))
            client = self.service("--connect", muxes, "--forward", ANY)
            await client.line(f"--connect {muxes}: connected")
            await self.assertEchoes(await client.address("forward"))

    test_localhost.skip = ROOT_ONLY  # type: ignore[attr-defined]

    @row(87, pairing=CLIENT)
    @report("twisted/twisted #9345")
    async def test_deadAddresses(self) -> None:
        """
        A server whose name has several dead addresses before a live one is reached.
        """
        # The system's resolver puts 127.0.0.1 first.
        _, prefix = self.hosts(*(f"127.0.0.{n} mux.test" for n in (1, 2, 3, 200)))
        listen = "tcp:0:interface=127.0.0.200"
        web = endpoint(self.at(target(echo)))
        server = self.service("--listen", listen, "--target", web)
        port = (await server.address("listen", listen)).rsplit(":", 1)[1]
        name = f"tcp:mux.test:{port}"
        client = self.service("--connect", name, "--forward", ANY, prefix=prefix)
        await client.line(f"--connect {name}: connected")
        await self.assertEchoes(await client.address("forward"))

    test_deadAddresses.skip = ROOT_ONLY  # type: ignore[attr-defined]

    @report("schwabe/ics-openvpn #627")
    async def test_moved(self) -> None:
        """
        A client finds its server again after the address of the server's name changed.
        """
        web = self.at(target(echo))
        path, prefix = self.hosts("127.0.0.2 mux.test")
        port = freePort()
        listen = f"tcp:{port}:interface=127.0.0."
        first = self.service("--listen", listen + "2", "--target", endpoint(web))
        await first.address("listen", listen + "2")
        client = self.service(
            "--connect", f"tcp:mux.test:{port}", "--forward", ANY, prefix=prefix
        )
        await client.line(f"--connect tcp:mux.test:{port}: connected")
        address = await client.address("forward")
        await self.assertEchoes(address)
        first.signal("KILL")
        second = self.service("--listen", listen + "3", "--target", endpoint(web))
        await second.address("listen", listen + "3")
        with open(path, "w") as file:
            file.write("127.0.0.3 mux.test\n")
        await client.line(f"--connect tcp:mux.test:{port}: connected")
        await self.assertEchoes(address)

    test_moved.skip = ROOT_ONLY  # type: ignore[attr-defined]

    @report("erebe/wstunnel #410")
    async def test_bothFamilies(self) -> None:
        """
        A port that listens on all IPv6 addresses takes IPv4 clients too.
        """
        web = self.at(target(echo))
        both = r"tcp6:0:interface=\:\:"
        server = self.service("--listen", both, "--target", endpoint(web))
        port = (await server.address("listen", both)).rsplit(":", 1)[1]
        client = self.service("--connect", f"tcp:127.0.0.1:{port}", "--forward", both)
        await client.line(f"--connect tcp:127.0.0.1:{port}: connected")
        port = (await client.address("forward", both)).rsplit(":", 1)[1]
        await self.assertEchoes(f"127.0.0.1:{port}")
        await self.assertEchoes(f"::1:{port}")

    @report("twisted/twisted #12320")
    async def test_linkLocal(self) -> None:
        """
        A mux and a forwarding port work on link-local IPv6 addresses with a scope.
        """
        with open("/proc/net/if_inet6") as file:
            rows = [line.split() for line in file]
        found = [
            ":".join(row[0][n : n + 4] for n in range(0, 32, 4)) + "%" + row[5]
            for row in rows
            if row[0].startswith("fe80")
        ]
        # Where there is no link-local address, the loopback address has a scope, too.
        found.append("::1%1")
        escaped = found[0].replace(":", r"\:")
        web = self.at(target(echo))
        local = f"tcp6:0:interface={escaped}"
        server = self.service("--listen", local, "--target", endpoint(web))
        port = (await server.address("listen", local)).rsplit(":", 1)[1]
        connection = f"tcp:host={escaped}:port={port}"
        client = self.service("--connect", connection, "--forward", ANY)
        await client.line(f"--connect {connection}: connected")
        await self.assertEchoes(await client.address("forward"))

    @row(87, pairing=SERVER)
    @report("openbikesensor/portal #301")
    async def test_badNames(self) -> None:
        """
        A target whose name cannot exist ends the stream with a log line and without a
        traceback; one to connect to does so too, and the process lives.
        """
        for name in ("a..b", "a" * 64 + ".test"):
            server = self.service("--listen", ANY, "--target", f"tcp:{name}:80")
            muxes = endpoint(await server.address("listen"))
            client = self.service("--connect", muxes, "--forward", ANY)
            await client.line(f"--connect {muxes}: connected")
            address = await client.address("forward")
            self.assertTrue(await deferToThread(isReset, address))
            await until(lambda: "cannot be connected" in server.log, "it is logged", 3)  # noqa: B023
            other = self.service("--connect", f"tcp:{name}:80", "--forward", ANY)
            await other.line(f"--connect tcp:{name}:80: cannot connect")
            for service in (server, client, other):
                self.assertNotIn("Traceback", service.log)
                self.assertFalse(service.ended.called)


class LoadTests(ReportCase):
    """
    Reports about many connections, and about processes and machines that pause.
    """

    @report("sshuttle/sshuttle #733")
    async def test_burst(self) -> None:
        """
        300 connections at the same time, each with one request, all get their answer.
        """
        _, _, address = await self.tunnel(echo)

        def ask() -> int:
            ours = [connect(address) for _ in range(300)]
            for connection in ours:
                connection.sendall(b"request")
                connection.shutdown(socket.SHUT_WR)
            count = sum(exactly(connection, 100) == b"request" for connection in ours)
            for connection in ours:
                connection.close()
            return count

        self.assertEqual(await deferToThread(ask), 300)

    @row(90, pairing=CLIENT)
    @report("HigherOrderCO/Bend #977")
    async def test_burstWaits(self) -> None:
        """
        When 300 connections come at once, none waits for its kernel's next attempt,
        which would come after a second.
        """
        _, _, address = await self.tunnel(echo)

        def longest() -> float:
            waits = []
            ours = []
            for _ in range(300):
                began = time.monotonic()
                ours.append(connect(address))
                waits.append(time.monotonic() - began)
            for connection in ours:
                connection.close()
            return max(waits)

        self.assertLess(await deferToThread(longest), 0.9)

    @report("fatedier/frp #885")
    async def test_thousand(self) -> None:
        """
        1000 connections can be open at the same time, and new ones still work.
        """
        server, client, address = await self.tunnel(echo)

        def ask() -> int:
            ours = [connect(address) for _ in range(1000)]
            for connection in ours:
                connection.sendall(b"hello")
            count = sum(exactly(connection, 5) == b"hello" for connection in ours)
            with connect(address) as another:
                another.sendall(b"hello")
                count += exactly(another, 5) == b"hello"
            self.idle = cpu(server) + cpu(client)
            time.sleep(2)
            self.idle = cpu(server) + cpu(client) - self.idle
            for connection in ours:
                connection.close()
            return count

        self.assertEqual(await deferToThread(ask), 1001)
        self.assertLess(self.idle, 0.1, "CPU time with 1000 idle streams")

    @report("EpicEric/sandhole #95")
    async def test_memoryComesBack(self) -> None:
        """
        Memory does not grow with the number of connections that have come and gone.
        """
        server, client, address = await self.tunnel(echo)

        def churn(count: int) -> None:
            for _ in range(count):
                with connect(address) as connection:
                    connection.sendall(bytes(20000))
                    exactly(connection, 20000)

        await deferToThread(churn, 500)
        before = server.resident(), client.resident()
        await deferToThread(churn, 2000)
        for service, size in zip((server, client), before, strict=True):
            self.assertLess(service.resident() - size, 2 * MIB)

    @report("Autossh/autossh #8")
    async def test_suspended(self) -> None:
        """
        When either process is suspended in the middle of a transfer and resumed, the
        transfer completes.  Meanwhile the other's memory is bounded.
        """
        size = 64 * MIB
        data = os.urandom(MIB)

        def pour(connection: socket.socket) -> None:
            for _ in range(size // MIB):
                connection.sendall(data)

        server, client, address = await self.tunnel(pour, "--strict")
        for stopped, other in ((server, client), (client, server)):
            connection = await deferToThread(connect, address)
            self.addCleanup(connection.close)
            self.assertTrue(await deferToThread(exactly, connection, MIB) == data)
            before = other.resident()
            os.kill(stopped.pid, signal.SIGSTOP)
            await sleep(3)
            self.assertLess(other.resident() - before, 16 * MIB)
            os.kill(stopped.pid, signal.SIGCONT)
            connection.settimeout(20)
            rest = await deferToThread(exactly, connection, size)
            self.assertTrue(rest == data * (size // MIB - 1), len(rest))

    @report("varnish/hitch #213")
    async def test_portsExhausted(self) -> None:
        """
        When no local port is left for the target, the connection is reset, the log has
        the reason, and later connections work again.
        """
        # The path of a socket must be short, so it is not trial's directory.
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        mux, forward = f"{directory}/mux", f"{directory}/forward"
        script = (
            "ip link set lo up; cd /proc/sys/net/ipv4;"
            "echo 40000 40009 >ip_local_port_range; echo 0 >tcp_tw_reuse; cd /;"
            f"{sys.executable} -c '{SILENT}' >/dev/null 2>&1 & exec \"$@\""
        )
        server = self.service(
            *("--listen", f"unix:{mux}", "--target", "tcp:127.0.0.1:8000"),
            prefix=["unshare", "-n", "sh", "-c", script, "sh"],
        )
        await server.address("listen", f"unix:{mux}")
        client = self.service(
            "--connect", f"unix:{mux}", "--forward", f"unix:{forward}"
        )
        await client.line(f"--connect unix:{mux}: connected")
        await sleep(1)

        def ask() -> tuple[int, int]:
            ours = [connect(forward) for _ in range(20)]
            good = bad = 0
            for connection in ours:
                try:
                    got = connection.recv(1)
                except ConnectionError:
                    got = b""
                good += got == b"!"
                bad += got == b""
            for connection in ours:
                connection.close()
            return good, bad

        good, bad = await deferToThread(ask)
        self.assertEqual(good + bad, 20)
        self.assertGreaterEqual(good, 5)
        self.assertGreaterEqual(bad, 5)
        self.assertIn("Cannot assign requested address", server.log)
        self.assertNotIn("Traceback", server.log)
        self.assertLess(server.log.count("Cannot assign"), 12)
        await sleep(0.5)

        def again() -> bytes:
            with connect(forward) as connection:
                try:
                    return connection.recv(1)
                except ConnectionError:
                    return b""

        end = time.monotonic() + 20
        while (got := await deferToThread(again)) != b"!" and time.monotonic() < end:
            await sleep(0.5)
        self.assertEqual(got, b"!")

    test_portsExhausted.skip = ROOT_ONLY  # type: ignore[attr-defined]


SILENT = (
    "import socket,threading\n"
    's=socket.create_server(("127.0.0.1",8000),backlog=100)\n'
    "def h(c):\n"
    '  c.sendall(b"!")\n'
    "  c.recv(1)\n"
    '  c.setsockopt(socket.SOL_SOCKET,socket.SO_LINGER,b"\\1\\0\\0\\0\\0\\0\\0\\0")\n'
    "  c.close()\n"
    "while 1: threading.Thread(target=h,args=(s.accept()[0],)).start()\n"
)


class ProcessTests(ReportCase):
    """
    Reports about how a service is run.
    """

    async def _under(
        self,
        python: tuple[str, ...] = (),
        twistd: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
    ) -> None:
        """
        Run both sides in a special way, and check that data goes through.

        @param python: Options of Python.
        @param twistd: Options of C{twistd}.
        @param prefix: The start of the command line.
        """
        web = self.at(target(echo))
        port, forward = freePort(), freePort()
        services = []
        for options in (
            ("--listen", at(port), "--target", endpoint(web)),
            ("--connect", f"tcp:127.0.0.1:{port}", "--forward", at(forward)),
        ):
            command = [*prefix, sys.executable, *python, *TWISTD[1:]]
            command += ["-n", "--pidfile=", *twistd, "gomux", *options]
            variables = {**environment(), "GOMUX_PSK": PSK}
            service = Service(" ".join(options))
            services.append(self.start(service, command, variables))
        await self.connects(forward)
        await self.assertEchoes(f"127.0.0.1:{forward}", 4 * MIB)
        for service in services:
            self.assertNotIn("Traceback", service.log)
            self.assertFalse(service.ended.called)

    @report("twisted/twisted #8367")
    async def test_reactors(self) -> None:
        """
        The tunnel runs with the select, poll and asyncio reactors.
        """
        for name in ("select", "poll", "asyncio"):
            await self._under(twistd=(f"--reactor={name}",))

    @report("mitogen-hq/mitogen #157")
    async def test_optimized(self) -> None:
        """
        The tunnel runs without assertions and docstrings.
        """
        await self._under(("-OO",))

    @report("OpenBazaar/OpenBazaar-Server #467")
    async def test_fullDisk(self) -> None:
        """
        The tunnel goes on when its log cannot be written: a full disk, a closed pipe.
        """
        full, closed = ">/dev/full 2>&1", "> >(exec true) 2>&1"
        for where in (full, closed):
            prefix = ("bash", "-c", f'exec "$@" {where}', "bash")
            await self._under(prefix=prefix)

    @report("twisted/twisted #8825")
    async def test_closedDescriptors(self) -> None:
        """
        Data is intact when a service is started with its descriptors 0 to 2 closed.
        """
        log = os.path.abspath(self.mktemp())
        close = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
        for options in ((f"--logfile={log}",), ()):
            await self._under(twistd=options, prefix=close)

    @report("cowrie/cowrie #1847")
    async def test_bareEnvironment(self) -> None:
        """
        C{twistd gomux} is found and runs in another directory, with nothing in the
        environment but the path of Python and the key.
        """
        bare = (f"PYTHONPATH={ROOT}", f"GOMUX_PSK={PSK}", "sh", "-c", 'cd /; exec "$@"')
        await self._under(prefix=("env", "-i", *bare, "sh"))

    @report("twisted/twisted #3363")
    async def test_rotatedLog(self) -> None:
        """
        SIGUSR1 makes a new log file and keeps the old one.  Streams do not notice.
        """
        log = os.path.abspath(self.mktemp())
        port = freePort()
        server = self.twistd(
            *(f"--logfile={log}", "gomux", "--listen", at(port)),
            *("--target", endpoint(self.at(target(echo)))),
            psk=PSK,
        )
        await self.connects(port)
        client = self.service("--connect", f"tcp:127.0.0.1:{port}", "--forward", ANY)
        address = await client.address("forward")
        await self.assertEchoes(address)
        os.kill(server.pid, signal.SIGUSR1)
        await until(lambda: os.path.exists(log + ".1"), "the old log is kept", 5)
        client.signal("KILL")
        await until(lambda: os.path.getsize(log), "the new log has lines", 5)

    @report("twisted/twisted #5575")
    async def test_socketActivation(self) -> None:
        """
        Services take their listening sockets from systemd, and serve a connection that
        came before they had started.
        """
        web = self.at(target(echo))
        muxes, forward = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self.addCleanup(muxes.close)
        self.addCleanup(forward.close)
        place = f"127.0.0.1:{muxes.getsockname()[1]}"
        address = f"127.0.0.1:{forward.getsockname()[1]}"
        early = connect(address)
        self.addCleanup(early.close)
        early.sendall(b"early")
        given = "systemd:domain=INET:index=0"
        for one, options in (
            (muxes, ("--listen", given, "--target", endpoint(web))),
            (forward, ("--connect", endpoint(place), "--forward", given)),
        ):
            service = Service(" ".join(options))
            script = 'export LISTEN_PID=$$; exec "$@"'
            command = [*TWISTD, "-n", "--pidfile=", "gomux", *options]
            reactor.spawnProcess(
                service,
                "/bin/sh",
                ["sh", "-c", script, "sh", *command],
                {
                    **environment(),
                    "GOMUX_PSK": PSK,
                    "LISTEN_FDS": "1",
                    "LISTEN_FDNAMES": "it",
                },
                childFDs={0: "w", 1: "r", 2: "r", 3: one.fileno()},
            )
            self.addCleanup(self._reap, service)
        self.assertEqual(await deferToThread(exactly, early, 5), b"early")
        await self.assertEchoes(address)


class Collect(Protocol):
    """
    Keeps what it receives.
    """

    transport: Any = None

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost: list[Any] = []
        self.inside = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.append((reason, self.inside))


class ProgramTests(ReportCase):
    """
    Reports about programs on Twisted's transports, tried on streams over real TCP.
    """

    async def streams(
        self, made: Callable[[], Any] = Collect, ours: Callable[[], Any] = Collect
    ) -> tuple[Any, Any]:
        """
        @return: the protocols of a stream, of the side that opened it and of the other.
        """
        theirs: list[Any] = []
        come: Deferred[Any] = Deferred()

        class Accept(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Any:
                protocol = made()
                theirs.append(protocol)
                reactor.callLater(0, come.callback, protocol)
                return protocol

        server = MuxServerEndpoint(
            reactor, TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), PSK
        )
        port = await server.listen(Accept())
        self.addCleanup(port.stopListening)
        self.client = MuxClientEndpoint(
            reactor, TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), PSK
        )
        self.addCleanup(self.client.close)
        mine = await self.client.connect(Factory.forProtocol(ours))
        self.addCleanup(mine.transport.abortConnection)
        return mine, await come

    @report("hashicorp/yamux #86")
    async def test_dataBeforeClose(self) -> None:
        """
        Data that was written before the stream and its mux were closed arrives.
        """
        mine, theirs = await self.streams()
        data = os.urandom(4 * MIB)
        mine.transport.write(data)
        mine.transport.loseConnection()
        await self.client.close()
        await until(lambda: theirs.lost, "it ends")
        self.assertTrue(bytes(theirs.data) == data, len(theirs.data))

    @report("twisted/twisted #9324")
    async def test_largeWrite(self) -> None:
        """
        One write of 64 MiB is about as fast as 1024 writes of 64 KiB.
        """
        mine, theirs = await self.streams()
        times = []
        for pieces in ([bytes(65536)] * 1024, [bytes(64 * MIB)]):
            theirs.data.clear()
            began = time.monotonic()
            for piece in pieces:
                mine.transport.write(piece)
            await until(lambda: len(theirs.data) == 64 * MIB, "it arrives")
            times.append(time.monotonic() - began)
        self.assertLess(times[1], 2 * times[0] + 0.5)

    @report("Kludex/zuvloop #61")
    async def test_mutableBuffers(self) -> None:
        """
        A buffer may be changed after it was written, and any buffer object will do.
        """
        mine, theirs = await self.streams()
        buffer = bytearray(b"a" * 1000000)
        mine.transport.write(buffer)
        buffer[:] = b"b" * len(buffer)
        view = memoryview(buffer)
        mine.transport.write(view[::2])
        mine.transport.writeSequence([bytearray(b"xy"), memoryview(b"z")])
        mine.transport.write(memoryview(array.array("H", [0x4141, 0x4242])))
        expected = b"a" * 1000000 + b"b" * 500000 + b"xyz" + b"AABB"
        await until(lambda: len(theirs.data) >= len(expected), "it arrives", 10)
        self.assertTrue(bytes(theirs.data) == expected)

    @report("twisted/twisted #10598")
    async def test_pausingLines(self) -> None:
        """
        A C{LineReceiver} that pauses and resumes in each line gets all lines, in order,
        and no deep recursion.
        """

        class Lines(LineReceiver):
            transport: Any = None

            def __init__(self) -> None:
                self.lines: list[bytes] = []
                self.depth = self.deepest = 0
                self.lost: list[Any] = []

            def lineReceived(self, line: bytes) -> None:
                self.depth += 1
                self.deepest = max(self.deepest, self.depth)
                self.pauseProducing()
                self.lines.append(line)
                if len(self.lines) % 3:
                    self.resumeProducing()
                else:
                    reactor.callLater(0, self.resumeProducing)
                self.depth -= 1

        mine, theirs = await self.streams(Lines)
        expected = [b"%d" % n for n in range(5000)]
        mine.transport.write(b"".join(line + b"\r\n" for line in expected))
        await until(lambda: len(theirs.lines) == 5000, "all lines")
        self.assertEqual(theirs.lines, expected)
        self.assertLess(theirs.deepest, 3)

    @report("twisted/twisted #5210")
    async def test_reentrant(self) -> None:
        """
        Closing from within any callback ends a protocol once, and never within its own
        call.
        """

        @implementer(IHalfCloseableProtocol)
        class Closes(Collect):
            def _call(self, *methods: str) -> None:
                self.inside = True
                for method in methods:
                    getattr(self.transport, method)()
                self.inside = False

            def dataReceived(self, data: bytes) -> None:
                self._call("loseWriteConnection")

            def writeConnectionLost(self) -> None:
                self._call("loseWriteConnection", "loseConnection", "abortConnection")

            def readConnectionLost(self) -> None:
                self._call("loseConnection", "loseConnection")

        mine, theirs = await self.streams(Closes, Closes)
        mine.transport.write(b"go")
        await until(lambda: theirs.lost and mine.lost, "both end", 10)
        await sleep(0.2)
        for protocol in (mine, theirs):
            self.assertEqual([inside for _, inside in protocol.lost], [False])

    @report("twisted/twisted #8014")
    async def test_cancelled(self) -> None:
        """
        C{connect()} can be cancelled at any moment.  No socket is left, no error is
        logged, and the endpoint still works.
        """
        # The running reactor has descriptors of its own.
        await sleep(0)
        before = len(os.listdir("/proc/self/fd"))
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        dead = MuxClientEndpoint(
            reactor,
            TCP4ClientEndpoint(reactor, "127.0.0.1", silent.getsockname()[1]),
            PSK,
            strict=True,
        )
        for delay in (0, 0.001, 0.05):
            connecting = dead.connect(Factory.forProtocol(Collect))
            if delay:
                await sleep(delay)
            connecting.cancel()
            await self.assertFailure(connecting, CancelledError)
        await dead.close()
        silent.close()
        await until(
            lambda: len(os.listdir("/proc/self/fd")) <= before, "no socket is left", 10
        )
        self.assertEqual(self.flushLoggedErrors(), [])

    @report("xtaci/smux #97")
    async def test_parallelOpens(self) -> None:
        """
        1000 streams that are opened at once take no longer than one after another.
        """
        mine, _ = await self.streams()

        class Echo(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(data)

        class Asks(Protocol):
            def __init__(self) -> None:
                self.answered: Deferred[None] = Deferred()

            def connectionMade(self) -> None:
                self.transport.write(b"this is s test message")

            def dataReceived(self, data: bytes) -> None:
                self.transport.loseConnection()
                self.answered.callback(None)

        server = MuxServerEndpoint(
            reactor, TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), PSK
        )
        factory = Factory.forProtocol(Echo)
        factory.noisy = False
        port = await server.listen(factory)
        self.addCleanup(port.stopListening)
        client = MuxClientEndpoint(
            reactor, TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), PSK
        )
        self.addCleanup(client.close)

        async def one() -> None:
            protocol = await client.connect(Factory.forProtocol(Asks))
            await protocol.answered

        await one()
        began = time.process_time()
        for _ in range(1000):
            await one()
        serial = time.process_time() - began
        began = time.process_time()
        await gatherResults([Deferred.fromCoroutine(one()) for _ in range(1000)])
        self.assertLess(time.process_time() - began, 1.5 * serial)

"""
The access log of C{twistd gomux}, with real processes, files and pipes.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from interop.support.harness import ROOT
from interop.support.tunnels import (
    ANY,
    MIB,
    PSK,
    TunnelTestCase,
    endpoint,
    run,
    until,
)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class AccessLogTests(TunnelTestCase):
    """
    The access logs of both sides
    """

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp()).resolve()
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = self.directory / "access.log"

    async def tunnel(self, target: str, *options: str, prefix: Any = ()) -> str:
        """
        Start a tunnel for the service C{web}.

        @param options: options of the server, with the log C{self.path}.
        @return: the address that the client forwards from.
        """
        self.server = self.twistd(
            *(*options, "gomux", "--listen", ANY, "--access-log", str(self.path)),
            *("--target", f"web={endpoint(target)}"),
            psk=PSK,
            prefix=prefix,
        )
        muxes = await self.server.address("listen")
        self.client = self.service(
            *("--connect", endpoint(muxes), "--forward", f"web={ANY}"),
            *("--access-log", "-"),
        )
        await self.client.line(f"--connect {endpoint(muxes)}: connected")
        return await self.client.address("forward", f"web={ANY}")

    async def test_download(self) -> None:
        """
        A download has a line on both sides, with the same number of bytes.  After a
        SIGUSR1 the lines go to a new file, also if the process has given up its
        privileges, and the process goes on.
        """
        user = pwd.getpwnam("nobody")
        flags = ()
        if os.geteuid() == 0:
            self.directory.chmod(0o755)
            os.chown(self.directory, user.pw_uid, user.pw_gid)
            flags = (f"--uid={user.pw_uid}", "--umask=022")
        web, path = await self.webServer(8 * MIB)
        address = await self.tunnel(web, *flags)
        await self.fetch(address, path)
        here = json.loads("{" + await self.client.line("{"))
        await until(lambda: self.path.stat().st_size, "the server has a line")
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        [there] = read(self.path)
        self.assertGreater(here["sent"], 8 * MIB)
        self.assertGreater(here["received"], 50)
        for name in ("sent", "received", "service"):
            self.assertEqual(there[name], here[name], name)
        self.assertEqual((here["end"], there["end"]), ("ok", "ok"))
        self.assertEqual(there["target"], web)

        moved = self.path.rename(self.directory / "moved.log")
        os.kill(self.server.pid, signal.SIGUSR1)
        await until(self.path.exists, "the log is opened again")
        await self.fetch(address, path)
        await until(lambda: self.path.stat().st_size, "the new file has a line")
        self.assertEqual(len(read(moved)), 1)

    async def test_counts(self) -> None:
        """
        The command in the how-to about the access log counts its connections.
        """
        web, path = await self.webServer(1000)
        address = await self.tunnel(web)
        for number in (1, 2):
            await self.fetch(address, path)
            await until(lambda n=number: len(read(self.path)) == n, "there is a line")
        script = ROOT / "docs" / "examples" / "access_counts.sh"
        told = await run("sh", "-euc", f"cd {self.directory}; . {script}")
        self.assertEqual(told, (b"      2 web ok\n", b"", 0))

    async def test_full(self) -> None:
        """
        A full disk hurts no connection.  The log of the process says once that lines
        cannot be written.
        """
        self.path = Path("/dev/full")
        web, path = await self.webServer(MIB)
        address = await self.tunnel(web)
        for _ in range(5):
            await self.fetch(address, path)
        await self.server.line("the access log /dev/full cannot be written: No space")
        self.assertEqual(self.server.log.count("cannot be written"), 1)

    async def test_pipe(self) -> None:
        """
        A reader of the standard output that reads nothing, and then goes away, hurts no
        connection.
        """
        os.mkfifo(self.path)
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        web, path = await self.webServer(MIB)
        address = await self.tunnel(web)
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        # More lines than the pipe takes.
        await gatherResults(
            [Deferred.fromCoroutine(self.fetch(address, path)) for _ in range(40)]
        )
        await self.server.line(f"the access log {self.path} cannot be written: nobody")
        os.close(reader)
        for _ in range(2):
            await self.fetch(address, path)
        self.assertEqual(self.server.log.count("cannot be written"), 1)

    async def test_unwritable(self) -> None:
        """
        If the file cannot be opened, the process ends with an error.
        """
        service = self.service("--access-log", "/proc/access.log", "--listen", ANY)
        self.assertEqual(await service.exitCode(), 1)
        self.assertIn("error: --access-log /proc/access.log: ", service.log)

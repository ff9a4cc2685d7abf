"""
The operator's port of real C{twistd gomux} processes, with the programs that an
operator uses: curl, jq, promtool, and a browser.

With C{GOMUX_SCREENSHOTS} set to a directory, the page's pictures are written there
after five minutes of traffic; those in C{docs/_static} were made so.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue

from gomux._wire.keyring import Keyring
from gomux.status._history import INTERVAL
from gomux.status._site import StatusFactory, StatusSite
from gomux.test.support.ports import freePort
from gomux.test.support.statusrig import StatusRig
from interop.support.harness import ROOT, Peer
from interop.support.tunnels import (
    ANY,
    MIB,
    Service,
    TunnelTestCase,
    endpoint,
    run,
    sleep,
)

NAMES = ("berlin", "lisbon", "oslo")
KEYS = "[keyring]\n" + "".join(f"{name}:{name * 6}\n" for name in NAMES)

SCREENSHOTS = os.environ.get("GOMUX_SCREENSHOTS")

BROWSER = (
    *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu"),
    *("--hide-scrollbars", "--disable-dev-shm-usage", "--no-first-run"),
    "--virtual-time-budget=4000",
)


async def shell(command: str) -> str:
    """
    @return: what a command of the shell printed.
    """
    output, errors, status = await run("sh", "-c", command)
    assert (errors, status) == (b"", 0), (command, output, errors, status)
    return output.decode()


class StatusTests(TunnelTestCase):
    """
    The operator's port
    """

    timeout = 400 if SCREENSHOTS else 120

    def setUp(self) -> None:
        # The path of a socket must be short.
        self.directory = Path(tempfile.mkdtemp(prefix="gomux-status-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.socket = self.directory / "status.sock"
        self.keys = self.directory / "keys"
        self.keys.write_text(KEYS)
        self.keys.chmod(0o600)

    def peer(self, *options: str) -> Service:
        return self.service("--psk-file", str(self.keys), *options, psk=None)

    async def browse(self, url: str, *options: str) -> str:
        """
        Open a page in a browser.

        @return: what the browser printed.
        """
        profile = tempfile.mkdtemp(prefix="profile-", dir=self.directory)
        command = (*BROWSER, f"--user-data-dir={profile}", *options, url)
        program = shutil.which(command[0])
        assert program is not None
        output, errors, status = await getProcessOutputAndValue(
            program, command[1:], env=os.environ
        )
        self.assertEqual(status, 0, errors)
        return str(output.decode())

    async def serve(self) -> tuple[str, Service]:
        """
        Start a server with two targets, one of which refuses connections, and a client
        that forwards.

        @return: the address that is forwarded to a web server, and the client.
        """
        web, self.large = await self.webServer(256 * MIB)
        gone = f"tcp:127.0.0.1:{freePort()}"
        self.server = self.peer(
            *("--listen", ANY, "--target", f"web={endpoint(web)}"),
            *("--target", f"ssh={gone}", "--status", ANY),
            *("--status", f"unix:{self.socket}", "--status-host", "gomux.example"),
        )
        muxes = await self.server.address("listen")
        self.address = await self.server.address("status")
        connect = f"--connect=lisbon={endpoint(muxes)}"
        client = self.peer(
            *(connect, "--forward", f"web={ANY}", "--forward", f"ssh={ANY}"),
            *("--status", ANY),
        )
        self.clientStatus = await client.address("status")
        self.name = connect.replace("=", " ", 1)
        await client.line(f"{self.name}: connected")
        refused = await client.address("forward", f"ssh={ANY}")
        _, _, status = await run("curl", "-s", f"http://{refused}/")
        self.assertNotEqual(status, 0)
        return await client.address("forward", f"web={ANY}"), client

    async def metric(self, name: str) -> float:
        """
        @return: the value of a metric, by its name and labels as they are printed.
        """
        text = await shell(f"curl -sf http://{self.address}/metrics")
        [value] = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(value)

    async def query(self, filter: str) -> Any:
        """
        @return: what jq finds in the JSON.
        """
        get = f"curl -sf --unix-socket {self.socket} http://any.example/status.json"
        return json.loads(await shell(f"{get} | jq -c '{filter}'"))

    async def test_operator(self) -> None:
        """
        The facts move while a connection lasts, and are the same in the JSON, the
        metrics and the page.  The health tells of a peer that is gone.
        """
        forwarded, client = await self.serve()
        url = f"http://{forwarded}/{os.path.basename(self.large)}"
        slow = ("curl", "-sf", "--limit-rate", "2M", "-o", "/dev/null", url)
        self.start(Peer("curl"), list(slow), dict(os.environ))
        sent = 'gomux_sent_bytes_total{peer="lisbon"}'
        open = 'gomux_connections{direction="served",service="web"}'
        seen = [await self.metric(sent)]
        while len(seen) < 4:
            await sleep(0.5)
            value = await self.metric(sent)
            self.assertGreaterEqual(value, seen[-1])
            if value > seen[-1]:
                seen.append(value)
        self.assertEqual(await self.metric(open), 1)

        lisbon = await self.query('.peers[] | select(.name == "lisbon")')
        self.assertEqual((lisbon["muxes"], lisbon["streams"]), (1, 1))
        self.assertGreaterEqual(lisbon["bytesSent"], seen[-1])
        self.assertRegex(lisbon["connections"][0]["address"], r"^127\.0\.0\.1:\d+$")
        self.assertEqual(
            await self.query('[.services[] | select(.service == "ssh") | .failures]'),
            [
                {"unknown": 0, "not-allowed": 0, "refused": 1, "unreachable": 0}
                | {"timeout": 0, "busy": 0, "failed": 0}
            ],
        )
        self.assertEqual(await self.query("[.peers[].name]"), list(NAMES))

        await shell(f"curl -sf http://{self.address}/metrics > {self.keys}.metrics")
        checked = await shell(f"promtool check metrics < {self.keys}.metrics 2>&1")
        self.assertEqual(checked, "")

        await self.rates()
        await self.pages()

        for host, code in (
            *(("localhost", "200"), ("gomux.example:80", "200")),
            *(("evil.example", "421"), ("", "400")),
        ):
            get = f"curl -s -o /dev/null -w '%{{http_code}}' -H 'Host: {host}'"
            if not host:
                get = get.replace("Host: ", "Host:")
            found = await shell(f"{get} http://{self.address}/healthz")
            self.assertEqual(found, code, host)

        health = f"curl -s -w '%{{http_code}}' http://{self.clientStatus}/healthz"
        self.assertEqual(await shell(health), "ok\n200")
        self.server.signal("KILL")
        await client.line(f"{self.name}: cannot connect")
        self.assertEqual(await shell(health), f"{self.name}\n503")

    async def rates(self) -> None:
        """
        Wait until the server has samples of the rates.
        """
        if SCREENSHOTS:
            await self.traffic(290.0)
        for _ in range(30):
            rates = await self.query('.peers[] | select(.name == "lisbon").rates.sent')
            if rates and rates[-1] > 0:
                return
            await sleep(INTERVAL / 10)
        self.fail("no samples")

    async def traffic(self, seconds: float) -> None:
        """
        Have two more peers move something, for the pictures.
        """
        muxes = next(
            line.rpartition(" ")[2]
            for line in self.server.log.splitlines()
            if line.startswith("--listen ")
        )
        client = self.peer(
            *(f"--connect=berlin={endpoint(muxes)}", "--forward", f"web={ANY}")
        )
        address = await client.address("forward", f"web={ANY}")
        end = reactor.seconds() + seconds
        name = os.path.basename(self.large)
        while reactor.seconds() < end:
            rate = int(random.uniform(200, 4000))
            await run(
                *("curl", "-s", "--max-time", str(random.choice((4, 8, 15)))),
                *("--limit-rate", f"{rate}k", "-o", "/dev/null"),
                f"http://{address}/{name}",
            )
            await sleep(random.choice((0, 3, 6)))

    async def pages(self) -> None:
        """
        The page shows the facts, in light and dark colours, and on a phone.
        """
        url = f"http://{self.address}/"
        page = await self.browse(url, "--dump-dom")
        for text in (*NAMES, ">web<", ">ssh<", "healthy", "max-streams", "refused 1"):
            self.assertIn(text, page)
        self.assertEqual(page.count('class="card'), len(NAMES))
        self.assertEqual(page.count('class="chart"'), len(NAMES))
        points = re.findall(
            r'class="sent"><polygon[^>]*></polygon><polyline points="([^"]*)"', page
        )
        self.assertEqual(len(points), len(NAMES))
        heights = [point.split(",")[1] for point in points[1].split()]
        self.assertEqual(len(heights), 60)
        self.assertIn("0.0", heights)
        self.assertEqual(page.count('class="limit"'), 7)
        for name, size, options in (
            ("light", (1080, 900), ()),
            ("dark", (1080, 900), ("--blink-settings=preferredColorScheme=0",)),
            ("phone", (500, 900), ()),
        ):
            path = self.directory / f"status-{name}.png"
            await self.browse(
                url,
                f"--window-size={size[0]},{size[1]}",
                f"--screenshot={path}",
                *options,
            )
            picture = path.read_bytes()
            self.assertEqual(struct.unpack(">II", picture[16:24]), size)
            self.assertGreater(len(picture), 20000)
            if SCREENSHOTS:
                shutil.copy(path, SCREENSHOTS)

    async def test_text(self) -> None:
        """
        What comes from outside is text on the page, and never markup.
        """
        rig = StatusRig(self)
        evil = "<img src=x onerror=document.title=1>"
        rig.service.parts.keyring = Keyring({evil: "0123456789abcdef"})
        rig.service.pool.tally.serving(evil)
        rig.listener.name = f"--listen {evil}"
        rig.listener.port = None
        site = StatusSite(reactor)
        site.show(rig.service)
        port = reactor.listenTCP(0, StatusFactory(site), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}/"
        page = await self.browse(url, "--dump-dom")
        self.assertEqual(page.count("&lt;img src=x onerror=document.title=1&gt;"), 3)
        self.assertNotIn("<img src=x", page)
        self.assertIn("1 problem", page)


class FileTests(TunnelTestCase):
    """
    The alerts of the documentation, and the dashboard
    """

    async def test_rules(self) -> None:
        """
        Prometheus accepts the alerts, and the expressions of the dashboard.
        """
        dashboard = json.loads((ROOT / "contrib" / "grafana.json").read_text())
        rules = [
            {"record": f"panel:{panel['id']}:{target['refId']}", "expr": expression}
            for panel in dashboard["panels"]
            for target in panel["targets"]
            for expression in [target["expr"].replace("$__rate_interval", "5m")]
        ]
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        alerts = ROOT / "docs" / "examples" / "status_alerts.yml"
        config = ROOT / "docs" / "examples" / "status_prometheus.yml"
        found = await shell(f"promtool check config {config}")
        self.assertIn("is valid prometheus config file syntax", found)
        for rulesFile, count in ((path, len(rules)), (alerts, 6)):
            found = await shell(f"promtool check rules {rulesFile}")
            self.assertIn(f"SUCCESS: {count} rules found", found)

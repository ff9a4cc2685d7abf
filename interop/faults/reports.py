"""
Public reports of faults of other software of this kind, which nobody had tried on this
software before, and what happened when each was tried for the first time.

C{interop/test/test_reports.py} has the tests.
"""

from __future__ import annotations

from typing import NamedTuple

PASSED = "passed"
MENDED = "failed, mended"


class Report(NamedTuple):
    """
    A report.

    @ivar fault: What can go wrong.
    @ivar result: What happened at the first try.
    """

    fault: str
    result: str = PASSED


REPORTS = {
    "openziti/ziti-tunnel-sdk-c #1218": Report(
        "the first bytes of a server that speaks first are lost"
    ),
    "erebe/wstunnel #360": Report(
        "the end of a long answer comes only when the server closes"
    ),
    "mitmproxy/mitmproxy #340": Report(
        "data right after 101 Switching Protocols is lost"
    ),
    "fatedier/frp #3645": Report("HTTP/2 without TLS does not go through"),
    "tinyproxy/tinyproxy #79": Report(
        "the answer of a server that refuses an upload early is lost"
    ),
    "rekby/lets-proxy #58": Report("uploads with Expect: 100-continue hang"),
    "Castaglia/proftpd-mod_proxy #78": Report(
        "TCP urgent data from the client is lost, or a process spins", MENDED
    ),
    "tempesta-tech/tempesta #873": Report(
        "TCP urgent data from the server is lost", MENDED
    ),
    "pahaz/sshtunnel #246": Report("small requests wait for delayed acknowledgements"),
    "twisted/twisted #2809": Report("half-closed connections take all CPU time"),
    "oven-sh/bun #37920": Report(
        "a client of a Unix socket that is gone takes all CPU time"
    ),
    "skycoin/skywire #3923": Report(
        "streams that wait when the mux is lost take all CPU time"
    ),
    "microsoft/vscode-remote-release #3561": Report(
        "the server of a download that the client has given up is not told"
    ),
    "ronf/asyncssh #823": Report(
        "a client that leaves while its target is being connected leaves the"
        " connection behind",
        "failed: it stays for up to ``--target-timeout``, because over TCP a client"
        " that leaves looks like one that has closed its writing half",
    ),
    "warp-tech/warpgate #2379": Report(
        "the health checks of a load balancer fill the log", MENDED
    ),
    "twisted/twisted #7078": Report(
        "a client that is gone before its target refuses causes a traceback"
    ),
    "localtunnel/localtunnel #474": Report(
        "a target is not reached if its name has an IPv6 address, too", MENDED
    ),
    "twisted/twisted #9345": Report(
        "a server is not reached if its name has a dead address before a live one",
        MENDED,
    ),
    "schwabe/ics-openvpn #627": Report(
        "a client does not notice that its server's name has a new address"
    ),
    "erebe/wstunnel #410": Report("a port cannot accept clients of both IPv4 and IPv6"),
    "twisted/twisted #12320": Report(
        "link-local IPv6 addresses with a scope cannot be used"
    ),
    "openbikesensor/portal #301": Report(
        "a name with an empty or too long part hangs, or causes a traceback", MENDED
    ),
    "sshuttle/sshuttle #733": Report(
        "of several hundred connections at once, some are reset"
    ),
    "HigherOrderCO/Bend #977": Report(
        "of several hundred connections at once, some wait for a second", MENDED
    ),
    "fatedier/frp #885": Report("a thousand open connections stop the service"),
    "EpicEric/sandhole #95": Report("memory grows with each connection"),
    "Autossh/autossh #8": Report("transfers are lost after one process was suspended"),
    "varnish/hitch #213": Report(
        "without a free local port, clients get an empty answer"
    ),
    "twisted/twisted #8367": Report(
        "other reactors do not work: select, poll, asyncio"
    ),
    "mitogen-hq/mitogen #157": Report("``python -OO`` breaks the program"),
    "OpenBazaar/OpenBazaar-Server #467": Report(
        "a log that cannot be written stops the program"
    ),
    "twisted/twisted #8825": Report(
        "a start with the descriptors 0 to 2 closed breaks the program"
    ),
    "cowrie/cowrie #1847": Report(
        "``twistd`` does not find the plugin in a bare environment"
    ),
    "twisted/twisted #3985": Report(
        "run from a zip file, ``twistd`` writes a traceback",
        "failed, as every ``twistd`` does: the traceback is Twisted's own",
    ),
    "twisted/twisted #3363": Report(
        "after logrotate has moved the log file, SIGUSR1 makes no new one",
        "failed, as every ``twistd`` does: SIGUSR1 itself moves the file",
    ),
    "twisted/twisted #5575": Report("sockets from systemd cannot be used"),
    "hashicorp/yamux #86": Report("data is lost that was written before the close"),
    "twisted/twisted #9324": Report("one large write is slow"),
    "Kludex/zuvloop #61": Report(
        "a buffer that is changed after it was written is sent changed"
    ),
    "twisted/twisted #10598": Report(
        "a ``LineReceiver`` that pauses in each line loses their order"
    ),
    "twisted/twisted #10833": Report(
        "a pull producer that once writes nothing is not called again",
        "failed, as over TCP: it must write at each call",
    ),
    "twisted/twisted #5210": Report(
        "a protocol that closes its transport within a call is called again in it"
    ),
    "twisted/twisted #8014": Report(
        "``connect()`` that is cancelled leaves a socket or an error"
    ),
    "xtaci/smux #97": Report("streams open more slowly in parallel"),
}
"""
The reports by their names.
"""


def section() -> list[str]:
    """
    Write the section about the reports, in reStructuredText.
    """
    passed = sum(report.result == PASSED for report in REPORTS.values())
    share = round(100 * passed / len(REPORTS))
    lines = [
        *("", "Reports about other software", "-" * 28, ""),
        "These faults of other multiplexers and tunnels, and of Twisted, were reported",
        "in public on GitHub. Nobody had tried them on this software before. At the",
        f"first try {passed} of {len(REPORTS)} passed, {share} %. Five of these passed",
        "only after a mistake in their own test was mended, which had not shown a",
        "fault. Without any mending, 29 of the 41 tests of the first run passed, 71 %.",
        "The tests are in ``interop/test/test_reports.py``.",
        "",
    ]
    lines += [
        f"- {name}: {report.fault}: **{report.result}**."
        for name, report in REPORTS.items()
    ]
    return lines

"""
Tests for L{gomux.tunnel.options._config}, the file of C{--config}, and for C{--check}.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from gomux import Limits, PeerRules
from gomux.limits import MAX_CONFIG
from gomux.tap import Options
from gomux.test.support.owner import owned
from gomux.tunnel import TunnelLimits
from gomux.tunnel._plan import Strict
from gomux.tunnel.options._config import pathOf, readConfig
from gomux.tunnel.options._keys import ENVIRONMENT

KEYS = """
[keyring]
alice:the pre-shared key of alice
bob:the pre-shared key of bob
"""

FULL = """
psk-file = "keys"
end-revoked = true
listen = ["tcp:7000", "unix:/run/gomux.sock"]
connect = ["alice=tcp:there.example:7000"]
forward = ["web@alice=tcp:8080:interface=127.0.0.1", "tcp:8081"]
target = ["ssh=tcp:localhost:22", "tcp:localhost:80"]
factory = ["page=gomux.PageFactory"]
context = "example"
access-log = "log/access"

[limits]
max-streams = 100
ping = 2
target-timeout = 2.5
half-open-timeout = 0

[peer.alice]
services = ["ssh", "unnamed"]
strict = true
max-muxes = 3
max-streams = 4

[peer."*"]
services = []
max-connections = 5
max-buffered = 6
"""

CHECKED = """\
Everything is valid. This process would:
  - accept muxes at tcp:7000
  - accept muxes at unix:/run/gomux.sock
  - keep a mux connected to tcp:there.example:7000, with the key of alice
  - accept connections at tcp:8080:interface=127.0.0.1, as streams to alice for the \
service web
  - accept connections at tcp:8081, as streams to any peer without a service
  - connect the peers' streams for the service ssh to tcp:localhost:22
  - connect the peers' streams without a service to tcp:localhost:80
  - serve the peers' streams for the service page with gomux.PageFactory
  - write the access log to {directory}/log/access
Peers:
  - alice: may use ssh, streams without a service; strict mode; max-muxes 3; \
max-streams 4
  - bob: no rules of its own
  - where a peer has no rule of its own: may use nothing; max-connections 5; \
max-buffered 6
Strict mode is for the peers named above, with a context.
Limits that are not the default:
  - target-timeout 2.5
  - half-open-timeout 0.0
  - max-streams 100
  - ping 2.0
SIGHUP reads the config and the pre-shared keys again.
"""


class ConfigTestCase(SynchronousTestCase):
    """
    Provides a directory with a key file and a config.
    """

    def setUp(self) -> None:
        self.patch(os, "environ", dict(os.environ))
        os.environ.pop(ENVIRONMENT, None)
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir(parents=True)
        self.config = self.directory / "gomux.toml"
        keys = self.directory / "keys"
        keys.write_text(KEYS)
        keys.chmod(0o600)

    def parse(self, text: str, *arguments: str) -> Options:
        """
        @return: the options from a config and a command line.
        """
        self.config.write_text(text)
        options = Options()
        options.parseOptions(["--config", str(self.config), *arguments])
        return options

    def mistakes(self, text: str, *arguments: str) -> list[str]:
        """
        @return: the mistakes in a config.
        """
        error = self.assertRaises(SystemExit, self.parse, text, *arguments)
        self.assertIsInstance(error.code, str)
        return [line.removeprefix("error: ") for line in str(error.code).splitlines()]

    def assertMistakes(self, text: str, *expected: str) -> None:
        """
        Check what is told about a config that also names a key file.
        """
        whole = f'psk-file = "keys"\n{text}'
        self.assertEqual(self.mistakes(whole), list(expected))


class ValueTests(ConfigTestCase):
    """
    What a config says
    """

    def test_full(self) -> None:
        """
        Each kind of key reaches the plan, as the option of that name would.
        """
        plan = self.parse(FULL).plan
        self.assertEqual(
            [(item.name, item.service, item.peer) for item in plan.items],
            [
                ("--listen tcp:7000", None, None),
                ("--listen unix:/run/gomux.sock", None, None),
                ("--connect alice=tcp:there.example:7000", None, "alice"),
                ("--forward web@alice=tcp:8080:interface=127.0.0.1", "web", "alice"),
                ("--forward tcp:8081", None, None),
                ("--target ssh=tcp:localhost:22", "ssh", None),
                ("--target tcp:localhost:80", None, None),
                ("--factory page=gomux.PageFactory", "page", None),
            ],
        )
        self.assertEqual(plan.keyring.names, {"alice", "bob"})
        self.assertEqual(plan.muxLimits, Limits(maxStreams=100, ping=2))
        self.assertEqual(
            plan.limits, TunnelLimits(targetTimeout=2.5, halfOpenTimeout=0)
        )
        self.assertEqual(plan.strict, Strict(("alice",), b"example"))
        self.assertTrue(plan.endRevoked)
        self.assertEqual(plan.accessLog, str(self.directory / "log" / "access"))
        self.assertEqual(
            plan.peers,
            {
                "alice": PeerRules(("ssh", "unnamed"), maxMuxes=3, maxStreams=4),
                "*": PeerRules((), maxConnections=5, maxBuffered=6),
            },
        )

    def test_sameAsCommandLine(self) -> None:
        """
        A config and a command line that say the same make the same plan.
        """
        plans = [
            self.parse(text, *arguments).plan
            for text, arguments in (
                (
                    'psk-file="keys"\nforward=["a=tcp:1"]\nstrict=true\nlimits.ping=3',
                    (),
                ),
                (
                    'psk-file="keys"',
                    ("--forward", "a=tcp:1", "--strict", "--ping", "3"),
                ),
            )
        ]
        shapes = [
            ([item.key for item in plan.items], plan.strict, plan.muxLimits)
            for plan in plans
        ]
        self.assertEqual(*shapes)

    def test_everyOption(self) -> None:
        """
        Each option is a key, but those about which a config says why they are none.
        """
        from gomux.tunnel.options._config import _ELSEWHERE, _Reader
        from gomux.tunnel.options._given import Mistakes

        options: Any = Options()
        reader = _Reader(options, {}, Mistakes())
        names = {option.rstrip("=") for option in options.longOpt}
        keys = reader._kinds.keys() | reader._limits.keys()
        self.assertEqual(names - keys, _ELSEWHERE.keys() & names)
        self.assertEqual(keys - names, set())

    def test_relative(self) -> None:
        """
        A path is relative to the directory in which the config was named, also where
        the config is a symbolic link, or is named by a relative path.
        """
        other = self.directory / "elsewhere"
        other.mkdir()
        (other / "real.toml").write_text('psk-file = "keys"')
        (self.directory / "link.toml").symlink_to(other / "real.toml")
        before = os.getcwd()
        os.chdir(self.directory)
        self.addCleanup(os.chdir, before)
        options = Options()
        options.parseOptions(["--config", "link.toml"])
        self.assertEqual(options.plan.keyring.names, {"alice", "bob"})

    def test_environment(self) -> None:
        """
        The pre-shared key may come from the environment, and stays after a reload.
        """
        os.environ[ENVIRONMENT] = "a pre-shared key of the tests"
        options = self.parse('listen = ["tcp:1"]')
        self.config.write_text('listen = ["tcp:1"]\nforward = ["tcp:2"]')
        plan = options.again(options.plan)
        self.assertIs(plan.keyring, options.plan.keyring)
        self.assertEqual(len(plan.items), 2)
        self.config.write_text('psk-file = "keys"')
        error = self.assertRaises(UsageError, options.again, options.plan)
        self.assertIn("only once", str(error))

    def test_noKey(self) -> None:
        """
        Without a pre-shared key, the mistake is that of the command line.
        """
        [mistake] = self.mistakes("")
        self.assertIn("a pre-shared key is needed: give --psk-file", mistake)


class MistakeTests(ConfigTestCase):
    """
    Mistakes in a config
    """

    def test_types(self) -> None:
        """
        A value of a wrong type is told with the path of its key, and without the value.
        """
        for text, expected in (
            ("strict = 1", "strict: needs true or false, not a number"),
            ('strict = "yes"', "strict: needs true or false, not a text"),
            ("strict = 2026-11-27", "strict: needs true or false, not a date or time"),
            ("context = 3", "context: needs a text, not a number"),
            ("context = true", "context: needs a text, not true or false"),
            ('listen = "tcp:1"', "listen: needs a list of texts, not a text"),
            ("listen = ['tcp:1', 2]", "listen[1]: needs a text, not a number"),
            ("listen = ['tcp:1', ['x']]", "listen[1]: needs a text, not a list"),
            ("limits = 3", "limits: needs a table, not a number"),
            ("peer = []", "peer: needs a table, not a list"),
            ("peer.alice = []", "peer.alice: needs a table, not a list"),
            (
                "peer.alice.services = 'a'",
                "peer.alice.services: needs a list of texts, not a text",
            ),
            (
                "peer.alice.strict = {}",
                "peer.alice.strict: needs true or false, not a table",
            ),
            (
                "limits.ping = 'x'",
                "limits.ping: needs a number, not a text",
            ),
            ('context = "a\\u0000b"', "context: has a NUL character"),
            ('listen = ["\\u0000"]', "listen[0]: has a NUL character"),
        ):
            self.assertMistakes(text, expected)

    def test_ranges(self) -> None:
        """
        A number that is out of range is told with what it has to be.
        """
        for text, expected in (
            ("max-streams = 0", "whole number greater than 0, not 0"),
            ("max-streams = 1.5", "whole number greater than 0, not 1.5"),
            ("max-streams = true", "whole number greater than 0, not True"),
            ("ping = -1", "number greater than 0, not -1"),
            ("ping = inf", "number greater than 0, not inf"),
            ("ping = nan", "number greater than 0, not nan"),
            ("busy-poll = -1", "number 0 or more, not -1"),
        ):
            name = text.partition(" ")[0]
            self.assertMistakes(f"limits.{text}", f"limits.{name}: needs a {expected}")
        self.assertMistakes(
            f"limits.ping = 1{400 * '0'}",
            f"limits.ping: needs a number greater than 0, not 1{400 * '0'}",
        )
        for value in ("0", "-1", "1.5", "true", "'x'", "9223372036854775808"):
            self.assertMistakes(
                f"peer.bob.max-muxes = {value}",
                "peer.bob.max-muxes: needs a whole number greater than 0",
            )

    def test_unknown(self) -> None:
        """
        An unknown key is told with the known key that is most like it, or with where
        that stands.
        """
        for text, expected in (
            ("listn = []", "listn: unknown key; is listen meant?"),
            ("limit = {}", "limit: unknown key; is limits meant?"),
            ("peers = {}", "peers: unknown key; is peer meant?"),
            ("zzzz = 1", "zzzz: unknown key"),
            ("max-streams = 1", "max-streams: unknown key; limits stand under"),
            ("limits.max-stream = 1", "limits.max-stream: unknown key; is max-streams"),
            ("peer.bob.service = []", "peer.bob.service: unknown key; is services"),
            ("proxy = []", "proxy: unknown key; this version has no such option"),
            ("permit = []", "permit: unknown key; this version has no such option"),
            ("peer.bob.permit = []", "peer.bob.permit: unknown key; this version has"),
            ("peer.bob.trust-from = true", "peer.bob.trust-from: unknown key; this"),
            ("allow = []", "allow: unknown key: services stand under [peer.NAME]"),
            ("strict-peer = []", "strict-peer: unknown key: this stands under [peer"),
            ("check = true", "check: unknown key: this is for the command line only"),
            ("config = 'x'", "config: unknown key: a config cannot name another"),
            ('"a b\\n" = 1', '"a b\\n": unknown key'),
        ):
            [mistake] = self.mistakes(f'psk-file = "keys"\n{text}')
            self.assertEqual(mistake[: len(expected)], expected)

    def test_secrets(self) -> None:
        """
        A key in a config is a mistake that does not show the key.
        """
        for text, expected in (
            ('psk = "my secret"', "psk: unknown key: a config must not have the key"),
            (
                'target = ["gomux:tcp:h:1:psk=my secret"]',
                "target[0]: a config must not have the key itself; give the path of its"
                " file as pskFile=",
            ),
        ):
            [mistake] = self.mistakes(f'psk-file = "keys"\n{text}')
            self.assertEqual(mistake[: len(expected)], expected)
            self.assertNotIn("my secret", mistake)
        [mistake] = self.mistakes('psk = "my secret"')
        self.assertIn("psk-file", mistake)

    def test_names(self) -> None:
        """
        Peers without a key, services without a valid name, and endpoints that cannot be
        used are told with the path of the value.
        """
        for text, expected in (
            ("[peer.carol]", "peer.carol: no key has the name 'carol'"),
            ('[peer."a.b"]', "peer.\"a.b\": no key has the name 'a.b'"),
            (
                "peer.carol.strict = true",
                "peer.carol: no key has the name 'carol'",
            ),
            (
                "peer.'*'.strict = true",
                'peer."*".strict: for all peers, strict stands outside of [peer]',
            ),
            (
                "strict = true\npeer.bob.strict = true",
                "peer.bob.strict: strict is for all peers: leave this out",
            ),
            (
                "context = 'x'",
                "context is of use only with --strict or --strict-peer",
            ),
            (
                "forward = ['tcp:1', 'web@carol=tcp:2']",
                "forward[1]: web@carol=tcp:2: no key has the name 'carol'",
            ),
            (
                "target = ['a=tcp:h:1', 'a=tcp:h:2']",
                "target[1]: a=tcp:h:2: 'a' is served already",
            ),
            (
                "factory = ['nonsense']",
                "factory[0]: nonsense: cannot be imported: No module named 'nonsense'",
            ),
            (
                "listen = ['nonsense']",
                "listen[0]: nonsense: not a usable endpoint: Unknown endpoint type:"
                " 'nonsense'",
            ),
            (
                "peer.bob.services = ['a', 'b c']",
                "peer.bob.services[1]: 'b c' is not the name of a service: 1 to 64 of"
                " the characters A-Z, a-z, 0-9, '.', '_' and '-'",
            ),
        ):
            self.assertMistakes(text, expected)

    def test_bothWays(self) -> None:
        """
        An option that the command line has too is a mistake that names both.
        """
        for text, arguments, expected in (
            (
                "listen=['tcp:1']",
                ("--listen", "tcp:2"),
                "listen: the command line has --listen too",
            ),
            (
                "strict-clock=false",
                ("--strict-c",),
                "strict-clock: the command line has --strict-clock too",
            ),
            (
                "limits.ping=1",
                ("--ping", "5"),
                "limits.ping: the command line has --ping too",
            ),
            (
                "peer.bob.services=['a']",
                ("--allow", "bob=b"),
                "peer.bob.services: the command line has --allow bob too",
            ),
            (
                "peer.bob.strict=true",
                ("--strict-peer", "bob"),
                "peer.bob.strict: the command line has --strict-peer bob too",
            ),
        ):
            found = self.mistakes(f'psk-file = "keys"\n{text}', *arguments)
            self.assertEqual(found[0], expected)
        found = self.mistakes('psk-file = "keys"', "--psk-file", "keys")
        self.assertEqual(found[0], "psk-file: the command line has --psk-file too")
        [mistake] = self.mistakes('psk-file = "keys"', "--psk", "x" * 16)
        self.assertEqual(
            mistake, "give the pre-shared key only once, not by --psk and psk-file"
        )
        # Rules for other peers may stand on the command line.
        self.parse('psk-file = "keys"\npeer.bob.services=["a"]', "--allow", "alice=b")

    def test_allAtOnce(self) -> None:
        """
        All mistakes are told at once, of the file, of the keys and of the options.
        """
        mistakes = self.mistakes(
            'psk-file = "nothing"\nlistn = 1\nforward = ["x", "a b=tcp:1"]\n'
            "peer.alice.services = ['-', '']\nlimits.ping = 0\ncontext = 'x'\n"
        )
        self.assertEqual(
            [mistake.split(": ")[0] for mistake in mistakes],
            [
                *("listn", "limits.ping", "psk-file"),
                "context is of use only with --strict or --strict-peer",
                *("peer.alice.services[1]", "forward[0]", "forward[1]"),
            ],
        )

    def test_unreadable(self) -> None:
        """
        A file that cannot be read, or is not TOML, is told with its path, and with
        nothing of its content.
        """
        for content, expected in (
            (b"x = [", "is not TOML: Invalid value (at end of document)"),
            (b"secret", "is not TOML: Expected (at end of document)"),
            (b"a = 1\na = secret", "is not TOML: Invalid value (at line 2, column 5)"),
            (b"a = '\xff'", "is not UTF-8"),
            (b"a = " + 20000 * b"[", "is nested too deeply"),
            (b"#" * (MAX_CONFIG + 1), f"is larger than {MAX_CONFIG} bytes"),
        ):
            self.config.write_bytes(content)
            error = self.assertRaises(ValueError, readConfig, str(self.config))
            self.assertEqual(str(error), expected)
        self.config.write_bytes(b"#" * MAX_CONFIG)
        self.assertEqual(readConfig(str(self.config)), {})
        self.config.chmod(0o666)
        error = self.assertRaises(ValueError, readConfig, str(self.config))
        self.assertEqual(str(error), "every user can change it")
        self.config.unlink()
        [mistake] = self.told()
        self.assertEqual(mistake, f"--config {self.config}: No such file or directory")
        os.mkfifo(self.config)
        [mistake] = self.told()
        self.assertEqual(mistake, f"--config {self.config}: is not a regular file")

    def told(self) -> list[str]:
        options = Options()
        error = self.assertRaises(
            SystemExit, options.parseOptions, ["--config", str(self.config)]
        )
        return [line.removeprefix("error: ") for line in str(error.code).splitlines()]

    def test_twice(self) -> None:
        """
        C{--config} can be given only once.
        """
        error = self.assertRaises(UsageError, self.parse, "", "--config", "x")
        self.assertIn("--config can be given only once", str(error))

    def test_paths(self) -> None:
        """
        The path of a key is written as TOML writes it.
        """
        self.assertEqual(pathOf("peer", "alice", "services"), "peer.alice.services")
        self.assertEqual(pathOf("peer", "a.b"), 'peer."a.b"')
        self.assertEqual(pathOf('a"\n'), '"a\\"\\n"')
        self.assertEqual(len(pathOf(1000 * " ")), 82)


class CheckTests(ConfigTestCase):
    """
    C{--check}
    """

    def check(self, text: str, *arguments: str) -> tuple[Any, str]:
        """
        @return: the exit status or the errors, and what was printed.
        """
        printed = io.StringIO()
        self.patch(sys, "stdout", printed)
        error = self.assertRaises(SystemExit, self.parse, text, "--check", *arguments)
        return error.code, printed.getvalue()

    def test_full(self) -> None:
        """
        It says in plain words what would run, and exits with status 0.
        """
        expected = CHECKED.format(directory=self.directory)
        self.assertEqual(self.check(FULL), (0, expected))

    def test_words(self) -> None:
        """
        It tells what an empty config does, strict mode, and warnings about keys.
        """
        short = self.directory / "short"
        short.write_text("short")
        short.chmod(0o600)
        _, text = self.check(
            'psk-file="short"\nallow-short-psk=true\nstrict=true\nstrict-clock=true\n'
            "allow-self=true"
        )
        for line in (
            "  - accept muxes at tcp:7000\n",
            "  - refuse streams without a service\n",
            "  - the peer: no rules of its own\n",
            "  - where a peer has no rule of its own: may use everything\n",
            "Strict mode is for all peers, with a check of the peers' clocks, and this"
            " process may connect to itself.\n",
            "Warning: the pre-shared key is shorter than 16 bytes.\n",
        ):
            self.assertIn(line, text)
        os.environ[ENVIRONMENT] = "a pre-shared key of the tests"
        options = Options()
        self.assertRaises(SystemExit, options.parseOptions, ["--check"])

    def test_mistakes(self) -> None:
        """
        With mistakes it prints nothing else, and exits with status 1, as a text as
        status does.
        """
        code, text = self.check('psk-file = "keys"\nlistn = 1')
        self.assertEqual(code, "error: listn: unknown key; is listen meant?")
        self.assertEqual(text, "")

    def test_noPermission(self) -> None:
        """
        A file that this user may not read is a mistake.
        """
        owned(self, 54321)
        code, text = self.check('psk-file = "keys"')
        self.assertIn("its owner is user 54321", code)

        def refuse(*arguments: object) -> int:
            raise PermissionError(13, "Permission denied")

        self.patch(os, "open", refuse)
        code, text = self.check('psk-file = "keys"')
        self.assertIn("gomux.toml: Permission denied; this process runs as user", code)
        self.assertEqual(text, "")

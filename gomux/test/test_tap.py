"""
Tests for L{gomux.tap}: the command line, and the service that it describes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.filepath import FilePath
from twisted.python.usage import Options as ParentOptions
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from gomux import Limits, MuxFactory, PageFactory
from gomux._mux.newcomer import Newcomers
from gomux._wire.salts import processSalts
from gomux.error import OpenStreamError
from gomux.tap import Options, makeService
from gomux.test.support.logs import Lines
from gomux.test.support.owner import owned
from gomux.tunnel import Tunnel, TunnelLimits
from gomux.tunnel._plan import withoutSecrets
from gomux.tunnel._service import (
    Connector,
    ListeningService,
    ServiceDialler,
    TunnelService,
)
from gomux.tunnel.options._given import hideSecrets
from gomux.tunnel.options._keys import ENVIRONMENT

PSK = "a secret of the tests"

factory = Factory.forProtocol(Protocol)
notAFactory = 3


def muxesOf(service: ListeningService) -> Any:
    """
    @return: the factory of the muxes of a C{--listen}.
    """
    factory = service.switch.wrapped
    assert isinstance(factory, Newcomers)
    return factory.wrappedFactory


def makeFactory() -> IProtocolFactory:
    """
    @return: a factory for C{--factory}.
    """
    return factory


def makeNone() -> None:
    """
    Return something that is not a factory.
    """


def failToMake() -> None:
    """
    Raise an error instead of making a factory.
    """
    raise ValueError("not today")


HERE = __name__


class TapTestCase(SynchronousTestCase):
    """
    Clears the environment's key, and records the log.
    """

    def setUp(self) -> None:
        self.patch(os, "environ", dict(os.environ))
        os.environ.pop(ENVIRONMENT, None)
        self.observer = Lines("gomux.t")
        globalLogPublisher.addObserver(self.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)

    def parse(self, *arguments: str) -> Options:
        """
        @return: the parsed options, with a pre-shared key unless the test gives
            one.
        """
        options = Options()
        if not any(argument.startswith("--psk") for argument in arguments):
            os.environ.setdefault(ENVIRONMENT, PSK)
        options.parseOptions(list(arguments))
        return options

    def assertUsageError(self, *arguments: str, says: str) -> None:
        error = self.assertRaises(UsageError, self.parse, *arguments)
        self.assertIn(says, str(error))
        self.assertNotIn(PSK, str(error))


class PSKTests(TapTestCase):
    """
    The sources of the pre-shared key
    """

    def write(self, text: str, mode: int = 0o600) -> str:
        path = FilePath(self.mktemp())
        path.setContent(text.encode())
        path.chmod(mode)
        return str(path.path)

    def assertKey(self, options: Options) -> None:
        expected = MuxFactory(PSK, False, clock=Clock()).keyring
        self.assertEqual(options.keyring.single(), expected.single())

    def test_psk(self) -> None:
        """
        C{--psk} gives the key, with a warning that other users can read it.
        """
        self.assertKey(self.parse("--psk", PSK))
        self.assertEqual(len(self.observer.lines), 1)
        self.assertIn("--psk-file is better", self.observer.lines[0])

    def test_environment(self) -> None:
        """
        C{GOMUX_PSK} gives the key, and is removed from the environment.
        """
        os.environ[ENVIRONMENT] = PSK
        self.assertKey(self.parse())
        self.assertNotIn(ENVIRONMENT, os.environ)
        self.assertEqual(self.observer.lines, [])

    def test_file(self) -> None:
        """
        C{--psk-file} gives the key in the first line of the file.
        """
        options = self.parse("--psk-file", self.write(PSK + "\n"))
        self.assertKey(options)
        self.assertEqual(self.observer.lines, [])

    def test_reload(self) -> None:
        """
        The key file can be read again.  If it is not valid any more, the old key stays.
        """
        path = self.write("the first pre-shared key")
        options = self.parse("--psk-file", path)
        FilePath(path).setContent(PSK.encode())
        FilePath(path).chmod(0o600)
        service = makeService(options)
        assert isinstance(service, TunnelService)
        for isThere in (True, False):
            service.reload()
            self.assertKey(options)
            assert service.reloaded is not None
            self.assertEqual(service.reloaded.worked, isThere)
            if isThere:
                FilePath(path).remove()
        self.assertEqual(len(self.observer.lines), 2)
        self.assertIn("read again", self.observer.lines[0])
        self.assertIn("stay as they are", self.observer.lines[1])

    def test_endRevoked(self) -> None:
        """
        C{--end-revoked} without a key file is an error.
        """
        self.assertFalse(self.parse("--psk-file", self.write(PSK))["end-revoked"])
        options = self.parse("--psk-file", self.write(PSK), "--end-revoked")
        self.assertTrue(options["end-revoked"])
        says = "--end-revoked needs a --psk-file"
        self.assertUsageError("--end-revoked", "--psk", PSK, says=says)
        self.assertUsageError("--end-revoked", says=says)

    def test_several(self) -> None:
        """
        A server may have several keys, a client only one.
        """
        path = self.write("one:aaaaaaaaaaaaaaaa\ntwo:bbbbbbbbbbbbbbbb\n")
        self.assertEqual(len(self.parse("--psk-file", path).keyring), 2)
        self.assertUsageError(
            *("--psk-file", path, "--connect", "tcp:127.0.0.1:1"),
            says="--connect tcp:127.0.0.1:1: say whose key to use, as PEER=ENDPOINT",
        )

    def test_none(self) -> None:
        """
        Without a key, the error names all ways to give one.
        """
        options = Options()
        error = self.assertRaises(UsageError, options.parseOptions, [])
        for way in ("--psk-file", "GOMUX_PSK", "--psk"):
            self.assertIn(way, str(error))

    def test_empty(self) -> None:
        """
        An empty key from any source is an error.
        """
        self.assertUsageError("--psk", "", says="--psk: the pre-shared key is empty")
        os.environ[ENVIRONMENT] = ""
        self.assertUsageError(says="GOMUX_PSK: the pre-shared key is empty")
        self.assertUsageError("--psk-file", self.write("\n"), says="--psk-file: ")

    def test_twice(self) -> None:
        """
        A key from more than one source is an error.
        """
        self.assertUsageError(
            *("--psk", PSK, "--psk-file", "x"), says="not by --psk and --psk-file"
        )
        os.environ[ENVIRONMENT] = PSK
        self.assertUsageError("--psk", PSK, says="not by --psk and the environment's")

    def test_unreadable(self) -> None:
        """
        A key file that cannot be read is an error.
        """
        path = os.path.abspath(self.mktemp())
        self.assertUsageError(
            *("--psk-file", path), says=f"--psk-file: {path}: No such file"
        )

    def test_readByOthers(self) -> None:
        """
        A key file that other users can read is an error, unless C{--psk-file-insecure}
        is given.
        """
        path = self.write(PSK, 0o644)
        self.assertUsageError("--psk-file", path, says="--psk-file-insecure")
        self.assertKey(self.parse("--psk-file", path, "--psk-file-insecure"))

    def test_short(self) -> None:
        """
        A short key is an error, unless C{--allow-short-psk} is given: then it causes a
        warning.  A reload needs the option too.
        """
        says = (
            "shorter than 16 bytes; make one with python -m gomux genpsk, or give --a"
        )
        path = self.write("fifteen bytes..")
        self.assertUsageError("--psk-file", path, says=says)
        self.assertUsageError("--psk", "fifteen bytes..", says=says)
        os.environ[ENVIRONMENT] = "fifteen bytes.."
        self.assertUsageError(says=says)
        self.parse("--psk-file", path, "--allow-short-psk")
        self.assertEqual(len(self.observer.lines), 1)
        self.assertIn("shorter than 16 bytes", self.observer.lines[0])
        options = self.parse("--psk-file", self.write("sixteen bytes..."))
        assert options.keyring._source is not None
        FilePath(options.keyring._source.path).setContent(b"fifteen bytes..")
        FilePath(options.keyring._source.path).chmod(0o600)
        service = makeService(options)
        assert isinstance(service, TunnelService)
        service.reload()
        self.assertIn("the pre-shared keys stay as they are", self.observer.lines[-1])

    def test_owner(self) -> None:
        """
        A key file of another user is an error, unless C{--psk-file-insecure} is given,
        or it is the file of the user that C{twistd --uid} names.
        """
        path = self.write(PSK)
        owned(self, 54321)
        says = "its owner is user 54321, who can read and change it; change the owner"
        self.assertUsageError("--psk-file", path, says=says)
        self.assertUsageError("--psk-file", path, says="--psk-file-insecure")
        self.assertKey(self.parse("--psk-file", path, "--psk-file-insecure"))
        options = Options()
        options.parent = ParentOptions()
        options.parent["uid"] = 54321
        options.parseOptions(["--psk-file", path])
        self.assertKey(options)

    def test_withSpace(self) -> None:
        """
        If a key has a space and is not in quotes, the error does not show its rest.
        """
        error = self.assertRaises(UsageError, self.parse, "--psk", "my", "secret")
        self.assertEqual(str(error), "unexpected argument")

    def test_keyInWrongOption(self) -> None:
        """
        No error shows a key that is in the value of a wrong option.
        """
        key = "my secret'\n:FIRST,x=LATER"
        missing = os.path.join(self.mktemp(), "psk=" + key)
        kinds = (UsageError, SystemExit)
        for arguments in (
            ["--allow", f"psk={key}"],
            ["--allow", f"a=psk={key}"],
            ["--factory", f"tcp:1:psk={key}"],
            ["--factory", f"a=gomux:tcp:1:PSK={key}"],
            ["--strict-peer", f"psk={key}"],
            [f"tcp:1psk={key}"],
            ["--strict-peer", f"a:psk\\={key}"],
            ["--max-streams", f"psk={key}"],
            ["--max-buffered", f"1:psk={key}"],
            ["--psk-file", missing],
            ["--config", missing],
            ["--config", missing, "--check"],
        ):
            given = ["--listen", "tcp:0", *arguments]
            error = self.assertRaises(kinds, Options().parseOptions, given)
            for part in ("secret", "FIRST", "LATER"):
                self.assertNotIn(part, str(error), arguments)
        text = "one: not 'psk=secret'; two psk=...: no port"
        hidden = "one: not 'psk=...'; two psk=...: no port"
        self.assertEqual(hideSecrets(text), hidden)

    def test_misspelled(self) -> None:
        """
        Errors do not show a key whose option or keyword is misspelled.
        """
        for arguments in (["psk=secret"], ["--target", "gomux:tcp:h:1:PSK=secret"]):
            options = ["--psk-file", self.write(PSK), *arguments]
            error = self.assertRaises(UsageError, Options().parseOptions, options)
            self.assertNotIn("secret", str(error))

    def test_secret(self) -> None:
        """
        The text of the options does not show the key.
        """
        self.assertNotIn(PSK, repr(self.parse("--psk", PSK)))


class OptionsTests(TapTestCase):
    """
    L{Options}
    """

    def test_default(self) -> None:
        """
        Without endpoints on the command line, muxes are accepted at port 7000.
        """
        options = self.parse()
        [item] = options.plan.items
        self.assertEqual(item.name, "--listen tcp:7000")
        self.assertIsInstance(item.what, TCP4ServerEndpoint)

    def test_noDefault(self) -> None:
        """
        With C{--connect}, no muxes are accepted by default.
        """
        options = self.parse("--connect", "tcp:127.0.0.1:1")
        [item] = options.plan.items
        self.assertEqual(item.name, "--connect tcp:127.0.0.1:1")
        self.assertIsInstance(item.what, TCP4ClientEndpoint)

    def test_repeated(self) -> None:
        """
        An option that may be repeated keeps all of its values.
        """
        options = self.parse(
            *("--listen", "tcp:1", "--listen", "tcp:2"),
            *("--connect", "tcp:h:3", "--connect", "tcp:h:4"),
            *("--forward", "tcp:5", "--forward", "unix:x"),
        )
        self.assertEqual(
            [item.name for item in options.plan.items[:6]],
            [
                *("--listen tcp:1", "--listen tcp:2"),
                *("--connect tcp:h:3", "--connect tcp:h:4"),
                *("--forward tcp:5", "--forward unix:x"),
            ],
        )

    def test_once(self) -> None:
        """
        Repeating any other option, or a value, is an error.
        """
        for option, value in (("forward", "tcp:1"), ("listen", "tcp:1")):
            self.assertUsageError(
                *(f"--{option}", value) * 2,
                says=f"--{option} {value}: can be given only once",
            )
        for option, value in (("target", "tcp:h:1"), ("factory", f"{HERE}.factory")):
            self.assertUsageError(
                *(f"--{option}", value) * 2,
                says=f"--{option} {value}: can be given only once",
            )

    def test_targetAndFactory(self) -> None:
        """
        C{--target} and C{--factory} cannot be used together.
        """
        self.assertUsageError(
            *("--target", "tcp:h:1", "--factory", f"{HERE}.factory"),
            says="--target and --factory",
        )

    def test_badEndpoints(self) -> None:
        """
        A bad endpoint string is an error that names the option and the value.
        """
        for option in ("listen", "connect", "forward", "target"):
            for value in ("nonsense", "nonsense:7000", "tcp:", "tcp:a:b:c:d", ""):
                self.assertUsageError(
                    *(f"--{option}", value), says=f"--{option} {value}: not a usable"
                )

    def test_nestedSecret(self) -> None:
        """
        An error or a name in the log hides the key in a C{gomux:} endpoint string.
        """
        options = self.parse("--target", f"gomux:tcp:h:1:psk={PSK}")
        [item] = options.plan.of("target")
        self.assertEqual(item.name, "--target gomux:tcp:h:1:psk=...")
        for string in (f"gomux:tcp:h:1:PSK={PSK}:more", f"gomux:tcp:h:1:psk={PSK}"):
            self.assertEqual(withoutSecrets(string), "gomux:tcp:h:1:psk=...")
        self.assertUsageError(
            "--target",
            f"gomux:nonsense:psk={PSK}",
            says="--target gomux:nonsense:psk=.",
        )
        # A colon without a backslash: the rest of the key looks like other parts.
        self.assertUsageError(
            *("--target", f"gomux:tcp:h:1:psk=sixteen bytes and:{PSK}"),
            says="a colon in the key needs a backslash",
        )

    def test_factory(self) -> None:
        """
        C{--factory} takes a factory, or a callable that returns one.
        """
        for name in ("factory", "makeFactory"):
            options = self.parse("--factory", f"{HERE}.{name}")
            self.assertIs(options.plan.of("factory")[0].what, factory)
        options = self.parse("--factory", "twisted.internet.protocol.Factory")
        self.assertIsInstance(options.plan.of("factory")[0].what, Factory)

    def test_factoryOfService(self) -> None:
        """
        C{--factory} with a service can be given several times, beside one without a
        service or a C{--target}.
        """
        name = f"{HERE}.factory"
        for other in (("--factory", name), ("--target", "tcp:h:1"), ()):
            options = self.parse(
                *("--factory", f"a={HERE}.makeFactory", "--factory", f"b-2={name}"),
                *other,
            )
            services = {i.service: i.what for i in options.plan.of("factory")}
            expected: dict[Any, Any] = {"a": factory, "b-2": factory}
            if other[:1] == ("--factory",):
                expected[None] = factory
            self.assertEqual(services, expected)

    def test_endpointsOfServices(self) -> None:
        """
        C{--forward} and C{--target} take a service in front of the endpoint, beside
        others without one.
        """
        options = self.parse(
            *(
                "--forward",
                "a=tcp:1",
                "--forward",
                "tcp:2",
                "--forward",
                "a=unix:x:mode=600",
            ),
            *("--target", "a=tcp:h:3", "--target", "tcp:host=h:port=4"),
        )
        self.assertEqual(
            [(item.name, item.service) for item in options.plan.of("forward")],
            [
                ("--forward a=tcp:1", "a"),
                ("--forward tcp:2", None),
                ("--forward a=unix:x:mode=600", "a"),
            ],
        )
        self.assertEqual(
            {item.service: item.name for item in options.plan.of("target")},
            {"a": "--target a=tcp:h:3", None: "--target tcp:host=h:port=4"},
        )
        for option in ("forward", "target"):
            for value in ("a b=tcp:h:1", "=tcp:h:1", "unnamed=tcp:h:1", "a b@=tcp:h:1"):
                self.assertUsageError(
                    *(f"--{option}", value),
                    says="is not the name of a service",
                )
        self.assertUsageError(
            *("--target", "a@b=tcp:h:1"), says="'a@b' is not the name of a service"
        )

    def test_peersOfEndpoints(self) -> None:
        """
        C{--forward} takes a peer, with a service or without, and C{--connect} takes the
        peer whose key it uses.
        """
        options = self.parse(
            *(*self.keys(), "--listen", "tcp:1"),
            *("--forward", "@alice=tcp:1", "--forward", "web@bob=tcp:2"),
            *("--connect", "alice=tcp:h:3", "--connect", "bob=unix:x"),
        )
        self.assertEqual(
            [(item.service, item.peer) for item in options.plan.of("forward")],
            [(None, "alice"), ("web", "bob")],
        )
        self.assertEqual(
            [(item.name, item.peer) for item in options.plan.of("connect")],
            [
                ("--connect alice=tcp:h:3", "alice"),
                ("--connect bob=unix:x", "bob"),
            ],
        )

    def test_badPeers(self) -> None:
        """
        A peer that has no key is an error that names the option and the value.
        """
        for option, value, says in (
            ("forward", "@carol=tcp:1", "no key has the name 'carol'"),
            ("forward", "web@=tcp:1", "no key has the name ''"),
            ("forward", "web@a@b=tcp:1", "no key has the name 'a@b'"),
            ("connect", "carol=tcp:h:1", "no key has the name 'carol'"),
            ("connect", "=tcp:h:1", "no key has the name ''"),
            ("connect", "tcp:h:1", "say whose key to use"),
            ("connect", "alice=nonsense", "not a usable endpoint"),
        ):
            self.assertUsageError(
                *(*self.keys(), f"--{option}", value),
                says=f"--{option} {value}: {says}",
            )
        self.assertUsageError(
            *("--forward", "@carol=tcp:1"),
            says="no key has the name 'carol'; a file that begins with [keyring]",
        )

    def test_servedTwice(self) -> None:
        """
        A service has one target or one factory.
        """
        self.assertUsageError(
            *("--target", "a=tcp:h:1", "--target", "a=tcp:h:2"),
            says="--target a=tcp:h:2: 'a' is served already",
        )
        self.assertUsageError(
            *("--target", "a=tcp:h:1", "--factory", f"a={HERE}.factory"),
            says="'a' is served already",
        )

    def test_badServices(self) -> None:
        """
        A service that is served twice or has no valid name is an error that names the
        option and the value.
        """
        name = f"{HERE}.factory"
        self.assertUsageError(
            *("--factory", f"a={name}", "--factory", f"a={HERE}.makeFactory"),
            says=f"--factory a={HERE}.makeFactory: 'a' is served already",
        )
        for service in ("", "unnamed", "a b", 65 * "x"):
            self.assertUsageError(
                *("--factory", f"{service}={name}"),
                says=f"--factory {service}={name}: {service!r} is not the name",
            )
        self.assertUsageError(
            *("--factory", "a=nonsense"),
            says="--factory a=nonsense: cannot be imported",
        )

    def keys(self) -> tuple[str, str]:
        """
        @return: options for a key file with the names C{alice} and C{bob}.
        """
        path = FilePath(self.mktemp())
        path.setContent(b"alice:aaaaaaaaaaaaaaaa\nbob:bbbbbbbbbbbbbbbb\n")
        path.chmod(0o600)
        return "--psk-file", str(path.path)

    def test_allow(self) -> None:
        """
        A peer with a rule may use what its rules say and nothing else, any other peer
        what the rules for C{*} say, and a peer without a rule may use everything.
        """
        for texts, expected in (
            ((), "alice:-ab bob:-ab"),
            (("alice=a",), "alice:a bob:-ab"),
            (("alice=a,unnamed",), "alice:-a bob:-ab"),
            (("alice=a", "alice=b"), "alice:ab bob:-ab"),
            (("*=b",), "alice:b bob:b"),
            (("alice=a", "*=b,unnamed"), "alice:a bob:-b"),
        ):
            arguments = [part for text in texts for part in ("--allow", text)]
            service = makeService(self.parse(*self.keys(), *arguments))
            assert isinstance(service, TunnelService)
            uses = service.keyring.uses
            found = [
                peer
                + ":"
                + "".join(
                    name or "-" for name in (None, "a", "b") if uses[peer].mayUse(name)
                )
                for peer in ("alice", "bob")
            ]
            self.assertEqual(" ".join(found), expected)

    def test_badRules(self) -> None:
        """
        A rule that is not valid, or for nobody, is an error that names the option and
        the rule.
        """
        for text, says in (
            ("alice", "a rule has the form PEER=SERVICE"),
            ("carol=a", "no key has the name 'carol'"),
            ("=a", "no key has the name ''"),
            ("alice=", "'' is not the name of a service"),
            ("alice=a,", "'' is not the name of a service"),
            ("*=a b", "'a b' is not the name of a service"),
        ):
            self.assertUsageError(
                *(*self.keys(), "--allow", text), says=f"--allow {text}: {says}"
            )
        self.assertUsageError("--allow", "=a", says="no key has the name ''")

    def test_badFactories(self) -> None:
        """
        A C{--factory} that is neither a factory nor a callable that returns one is an
        error that names it.
        """
        for name, says in (
            ("nonsense", "cannot be imported"),
            (f"{HERE}.nonsense", "cannot be imported"),
            ("", "cannot be imported"),
            (f"{HERE}.notAFactory", "not an IProtocolFactory"),
            (f"{HERE}.makeNone", "not an IProtocolFactory"),
            (f"{HERE}.failToMake", "calling it failed: not today"),
        ):
            self.assertUsageError(
                *("--factory", name), says=f"--factory {name}: {says}"
            )

    def test_limits(self) -> None:
        """
        Each limit has an option with the limit's default.
        """
        options = self.parse()
        self.assertEqual(options.limits(Limits), Limits())
        self.assertEqual(options.limits(TunnelLimits), TunnelLimits())
        options = self.parse("--max-streams", "7", "--target-timeout", "2.5")
        self.assertEqual(options.limits(Limits), Limits(maxStreams=7))
        self.assertEqual(options.limits(TunnelLimits), TunnelLimits(targetTimeout=2.5))

    def test_badLimits(self) -> None:
        """
        A bad value of a limit is an error that names the option.
        """
        for value in ("0", "-1", "x", "2.5"):
            self.assertUsageError(
                *("--max-streams", value),
                says=f"--max-streams needs a whole number greater than 0, not '{value}",
            )
        for value in ("0", "x", "inf", "nan"):
            self.assertUsageError(
                *("--keepalive", value),
                says=f"--keepalive needs a number greater than 0, not {value!r}",
            )
        for value in ("-0.1", "x", "inf", "nan"):
            self.assertUsageError(
                *("--busy-poll", value),
                says=f"--busy-poll needs a number 0 or more, not {value!r}",
            )
        options = self.parse("--busy-poll", "0")
        self.assertEqual(options.limits(Limits), Limits(busyPoll=0))

    def test_unknown(self) -> None:
        """
        An unknown option is an error.
        """
        self.assertUsageError("--nonsense", says="--nonsense")
        self.assertUsageError("nonsense", says="nonsense")

    def test_help(self) -> None:
        """
        The help has examples and a text for each option.  It has no markup, and nothing
        of the running program's docstring.
        """
        self.patch(sys.modules["__main__"], "__doc__", "Another program.")
        text = str(Options())
        for kind in (Limits, TunnelLimits):
            for field in fields(kind):
                name = re.sub("[A-Z]", lambda m: "-" + m[0].lower(), field.name)
                self.assertRegex(text, rf"--{name}= +[A-Z]")
        for option in ("psk", "psk-file", "listen", "connect", "forward", "target"):
            self.assertRegex(text, rf"--{option}= +\w")
        self.assertNotRegex(text, r"[A-Z]\{")
        self.assertIn("twistd gomux --psk-file psk --listen", text)
        self.assertNotIn("Another program.", text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)

    def test_optimized(self) -> None:
        """
        C{python -OO} has no docstrings, and so no texts for the options that are
        limits.  All else works.
        """
        show = "from gomux.tap import Options; print(Options())"
        done = subprocess.run(
            [sys.executable, "-OO", "-c", show], capture_output=True, text=True
        )
        self.assertEqual(done.stderr, "")
        self.assertIn("--target-timeout=", done.stdout)

    def test_helpOrder(self) -> None:
        """
        The help has each option once.  Those that say what is carried are first, and
        the limits stand in a section of their own, after the guide.
        """
        first, _, limits = str(Options()).partition("\nLimits:\n")
        pattern = r"(?m)^  .{4}--([a-z-]+)"
        names = re.findall(pattern, first)
        self.assertEqual(
            names[:8],
            [
                *("psk", "psk-file", "listen", "connect"),
                *("forward", "target", "factory", "allow"),
            ],
        )
        self.assertIn("context", names)
        self.assertIn("A PEER is a name", first)
        limited = re.findall(pattern, limits)
        self.assertEqual(limited, sorted(limited))
        self.assertEqual(len(limited), len(fields(Limits)) + len(fields(TunnelLimits)))
        every = [option.rstrip("=") for option in Options().longOpt]
        self.assertEqual(sorted(names + limited), sorted(every))

    def test_examples(self) -> None:
        """
        The command lines in the help can be parsed.
        """
        text = str(Options()).replace("\\\n", " ")
        examples = re.findall(r"\$ twistd gomux (.*)", text)
        self.assertEqual(len(examples), 6)
        for example in examples:
            self.parse(
                *example.replace("--psk-file psk", "--psk 0123456789abcdef").split()
            )


class ServiceTests(TapTestCase):
    """
    L{makeService}
    """

    def make(self, *arguments: str) -> tuple[TunnelService, dict[str, Any]]:
        """
        @return: the service, and its child services by name.
        """
        service = makeService(self.parse(*arguments))
        assert isinstance(service, TunnelService)
        parts: dict[str, Any] = {}
        for child in service:
            assert isinstance(child, (ListeningService, Connector))
            parts[str(child.name)] = child
        return service, parts

    def test_interface(self) -> None:
        """
        The service provides L{IService}.
        """
        verifyObject(IService, self.make()[0])

    def test_parts(self) -> None:
        """
        There is a service for each endpoint, and all of them share one pool of muxes.
        """
        service, parts = self.make(
            *("--listen", "tcp:1", "--connect", "tcp:h:2", "--forward", "tcp:3"),
            *("--target", "tcp:h:4"),
        )
        self.assertEqual(
            sorted(parts), ["--connect tcp:h:2", "--forward tcp:3", "--listen tcp:1"]
        )
        server = muxesOf(parts["--listen tcp:1"])
        client = parts["--connect tcp:h:2"].dialler
        self.assertIsInstance(server, MuxFactory)
        self.assertIsInstance(client, ServiceDialler)
        self.assertEqual((server.isClient, client.isClient), (False, True))
        self.assertIs(server.pool, service.pool)
        self.assertIs(client.pool, service.pool)
        streams = server.streamFactory
        self.assertIs(client.streamFactory, streams)
        self.assertEqual(streams.name, "--target tcp:h:4")
        forwards = parts["--forward tcp:3"].switch.wrapped
        self.assertIsInstance(forwards, Tunnel)
        self.assertEqual(service.tunnels, [forwards, streams])
        self.assertEqual(service.factories, [server, client])
        self.assertEqual(
            service.listeners, [parts["--listen tcp:1"], parts["--forward tcp:3"]]
        )
        self.assertEqual(service.connectors, [parts["--connect tcp:h:2"]])
        self.assertIs(service.connectors[0].mux, None)
        self.assertIs(service.keyring, server.keyring)
        self.assertFalse(service.listeners[0].isListening)

    def test_limits(self) -> None:
        """
        Each option for a limit reaches the part that has the limit.
        """
        _, parts = self.make("--max-streams", "7")
        self.assertEqual(muxesOf(parts["--listen tcp:7000"]).limits.maxStreams, 7)
        _, parts = self.make("--connect", "tcp:h:2", "--max-retry-delay", "0.5")
        self.assertEqual(parts["--connect tcp:h:2"].dialler.maxRetryDelay, 0.5)

    def test_strict(self) -> None:
        """
        C{--strict} makes muxes in strict mode, with the details that other options
        give.
        """
        both = ("--listen", "tcp:1", "--connect", "tcp:h:2")
        details = ("--context", "example.org/\xfc", "--strict-clock")
        for arguments, expected in (
            ((), (False, b"", False)),
            (("--strict",), (True, b"", False)),
            (("--strict", *details), (True, b"example.org/\xc3\xbc", True)),
        ):
            _, parts = self.make(*arguments, *both)
            server = muxesOf(parts["--listen tcp:1"])
            client = parts["--connect tcp:h:2"].dialler
            for factory in (server, client):
                found = (factory.strict, factory.context, factory.strictClock)
                self.assertEqual(found, expected)
                self.assertIs(factory.salts, processSalts)

    def test_allowSelf(self) -> None:
        """
        With C{--allow-self}, the two roles do not recognize the hellos of each other.
        """
        both = ("--listen", "tcp:1", "--connect", "tcp:h:2")
        _, parts = self.make("--strict", "--allow-self", *both)
        server = muxesOf(parts["--listen tcp:1"])
        client = parts["--connect tcp:h:2"].dialler
        self.assertNotIn(processSalts, (server.salts, client.salts))
        self.assertIsNot(server.salts, client.salts)

    def test_strictPeers(self) -> None:
        """
        C{--strict-peer} makes muxes in strict mode for the peers that it names.
        """
        path = FilePath(self.mktemp())
        path.setContent(f"alice:a long secret of alice\nbob:{PSK}\n".encode())
        path.chmod(0o600)
        keys = ("--psk-file", str(path.path))
        _, parts = self.make(*keys, "--strict-peer", "alice")
        self.assertEqual(muxesOf(parts["--listen tcp:7000"]).strict, ("alice",))
        for arguments, message in (
            (("--strict-peer", "eve"), "--strict-peer eve: no key has this name"),
            (("--strict-peer", ""), "no key has this name"),
            (
                ("--strict-peer", "bob", "--strict"),
                "--strict-peer bob: --strict is for all peers: leave this out",
            ),
        ):
            self.assertUsageError(*keys, *arguments, says=message)

    def test_strictDetails(self) -> None:
        """
        The options that are of use in strict mode only are refused without it.
        """
        for arguments in (("--context", "x"), ("--strict-clock",), ("--allow-self",)):
            message = f"{arguments[0]} is of use only with --strict or --strict-peer"
            self.assertUsageError(*arguments, says=message)

    def test_factory(self) -> None:
        """
        With C{--factory}, that factory serves the streams.
        """
        _, parts = self.make("--factory", f"{HERE}.factory")
        self.assertIs(muxesOf(parts["--listen tcp:7000"]).streamFactory, factory)

    def test_targets(self) -> None:
        """
        Each target serves its own streams, and a forwarding endpoint opens streams for
        its service.
        """
        service, parts = self.make(
            *("--target", "a=tcp:h:1", "--target", "tcp:h:2", "--forward", "b=tcp:3"),
            *("--factory", f"c={HERE}.factory"),
        )
        muxes = muxesOf(parts["--listen tcp:7000"])
        self.assertEqual(muxes.services["a"].name, "--target a=tcp:h:1")
        self.assertIs(muxes.services["c"], factory)
        self.assertEqual(muxes.streamFactory.name, "--target tcp:h:2")
        self.assertEqual(len(service.tunnels), 3)
        forwarding = parts["--forward b=tcp:3"].switch.wrapped
        asked: list[Any] = []

        def openStream(factory: Any, timeout: float, service: str, peer: Any) -> Any:
            asked.append((service, peer))
            return succeed(None)

        self.patch(service.pool, "openStream", openStream)
        forwarding.connect(Factory())
        self.assertEqual(asked, [("b", None)])

    def test_services(self) -> None:
        """
        The services and the rules hold for muxes of both roles.  The status page does
        not appear beside services.
        """
        service, parts = self.make(
            *("--listen", "tcp:1", "--connect", "tcp:h:2", "--allow", "*=a"),
            *("--factory", f"a={HERE}.factory"),
        )
        muxes = [
            muxesOf(parts["--listen tcp:1"]),
            parts["--connect tcp:h:2"].dialler,
        ]
        for one in muxes:
            self.assertEqual(one.services, {"a": factory})
            self.assertIsNone(one.streamFactory)
            self.assertIs(one.keyring, service.keyring)
        use = service.keyring.uses[""]
        found = [use.mayUse(name) for name in ("a", "b", None)]
        self.assertEqual(found, [True, False, False])
        service, _ = self.make()
        self.assertTrue(service.keyring.uses[""].mayUse("b"))

    def test_page(self) -> None:
        """
        With neither a target nor a factory, streams get the status page if the process
        both listens and connects, and are refused otherwise.
        """
        both = ("--listen", "tcp:1", "--connect", "tcp:h:2")
        _, parts = self.make(*both)
        self.assertIsInstance(
            muxesOf(parts["--listen tcp:1"]).streamFactory, PageFactory
        )
        _, parts = self.make("--factory", "gomux.PageFactory")
        self.assertIsInstance(
            muxesOf(parts["--listen tcp:7000"]).streamFactory,
            PageFactory,
        )
        for one in (both[:2], both[2:]):
            [part] = self.make(*one)[1].values()
            muxes = getattr(part, "dialler", None) or muxesOf(part)
            self.assertIsNone(muxes.streamFactory)

    def test_reload(self) -> None:
        """
        Without a key file, SIGHUP only logs that there is nothing to read again.
        """
        service, _ = self.make()
        service.reload()
        self.assertIn("nothing to read again", self.observer.lines[-1])
        self.assertIs(service.reloaded, None)

    def reloaded(self, *arguments: str, then: str) -> list[tuple[str, frozenset[str]]]:
        """
        Change the file of keys, and have the service read it again.

        @param then: the new contents.

        @return: for each of the service's factories, the keys whose muxes it was
            told to end.
        """
        path = FilePath(self.mktemp())
        path.setContent(b"[keyring]\nalice:aaaaaaaaaaaaaaaa\n")
        path.chmod(0o600)
        service, parts = self.make(
            *("--psk-file", path.path, "--listen", "tcp:1", "--connect", "tcp:h:2"),
            *arguments,
        )
        told: list[tuple[str, frozenset[str]]] = []
        for name, factory in (
            ("server", muxesOf(parts["--listen tcp:1"])),
            ("client", parts["--connect tcp:h:2"].dialler),
        ):
            factory.endRevoked = lambda names, who=name: told.append((who, names))
        path.setContent(then.encode())
        path.chmod(0o600)
        service.reload()
        return told

    def test_endRevoked(self) -> None:
        """
        Only with C{--end-revoked} are muxes ended whose keys were removed or changed.
        """
        changed = "[keyring]\nalice:bbbbbbbbbbbbbbbb\n"
        self.assertEqual(self.reloaded(then=changed), [])
        alice = frozenset(["alice"])
        self.assertEqual(
            self.reloaded("--end-revoked", then=changed),
            [("server", alice), ("client", alice)],
        )

    def test_endRevokedMistake(self) -> None:
        """
        A file that is not valid revokes no keys.
        """
        self.assertEqual(self.reloaded("--end-revoked", then=""), [])
        self.assertIn("stay as they are", self.observer.lines[-1])

    def test_withoutNames(self) -> None:
        """
        A key file that has become a single line without the heading is not valid.
        """
        self.assertEqual(self.reloaded("--end-revoked", then="alice:a key of a"), [])
        self.assertIn("would count as a key without a name", self.observer.lines[-1])

    def test_peerRemoved(self) -> None:
        """
        Options that name a peer without a key are logged after a reload.  Nothing goes
        to that peer, also of what waited for it, until it has a key again.
        """
        path = FilePath(self.mktemp())
        both = b"alice:aaaaaaaaaaaaaaaa\nbob:bbbbbbbbbbbbbbbb\n"
        path.setContent(both)
        path.chmod(0o600)
        service, parts = self.make(
            *("--psk-file", path.path, "--listen", "tcp:1", "--allow", "alice=a"),
            *("--forward", "@alice=tcp:2", "--forward", "@bob=tcp:3"),
            *("--connect", "alice=tcp:h:4"),
        )
        alice, bob = (
            parts[f"--forward @{name}"].switch.wrapped
            for name in ("alice=tcp:2", "bob=tcp:3")
        )
        waiting = [alice.connect(Factory()), bob.connect(Factory())]
        path.setContent(b"[keyring]\nbob:bbbbbbbbbbbbbbbb\n")
        path.chmod(0o600)
        service.reload()
        lines = [line for line in self.observer.lines if "no key has" in line]
        self.assertEqual(
            [line.partition(": no key has the name 'alice'")[0] for line in lines],
            ["--allow alice", "--connect alice=tcp:h:4", "--forward @alice=tcp:2"],
        )
        error = self.failureResultOf(waiting[0], OpenStreamError)
        self.assertIn("was removed", str(error.value))
        self.failureResultOf(alice.connect(Factory()), OpenStreamError)
        self.assertNoResult(waiting[1])
        client = parts["--connect alice=tcp:h:4"].dialler
        self.assertRaises(ValueError, client.buildProtocol, None)
        path.setContent(both)
        path.chmod(0o600)
        service.reload()
        again = alice.connect(Factory())
        self.assertNoResult(again)
        self.assertEqual(client.makeGate().name, "alice")
        service.pool.failWaiting(OpenStreamError())
        self.failureResultOf(waiting[1], OpenStreamError)
        self.failureResultOf(again, OpenStreamError)

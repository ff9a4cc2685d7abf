"""
Tests for L{gomux._wire.keyring} and L{gomux._wire.keysearch}.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from gomux._wire.crypto import Sealer, deriveKey
from gomux._wire.frame import HELLO_SIZE, Flag, NotYet
from gomux._wire.keyring import Keyring, Keys, readPSKFile
from gomux._wire.keysearch import KEYS_A_TURN, KeySearch, KnownKey
from gomux.error import AuthenticationFailed, KeyringError, Truncated
from gomux.limits import MAX_KEY_FILE, MAX_KEYS
from gomux.test.support.owner import owned

ALICE = "the pre-shared key of alice"
BOB = "the pre-shared key of bob"
EVE = "a pre-shared key of nobody here"


class KeyringTests(SynchronousTestCase):
    """
    L{Keyring}
    """

    def refused(self, psks: dict[str, str | bytes], message: str) -> None:
        error = self.assertRaises(KeyringError, Keyring, psks)
        self.assertIn(message, str(error))
        self.assertIsInstance(error, ValueError)

    def test_singleOfPeer(self) -> None:
        """
        A client uses the key of one peer: the last, if the peer has two.
        """
        keys = Keyring((("a", "1"), ("b", "2"), ("a", "3"), ("b", "4")))
        self.assertEqual(keys.single("a"), ("a", deriveKey("3")))
        self.assertEqual(keys.single("b"), ("b", deriveKey("4")))
        self.assertRaises(KeyringError, keys.single)
        error = self.assertRaises(KeyringError, keys.single, "c")
        self.assertIn("'c'", str(error))

    def test_of(self) -> None:
        """
        A single pre-shared key makes a keyring with one key, which has no name.
        """
        for psk in ("clé", "clé".encode()):
            keyring = Keyring.of(psk)
            self.assertEqual(keyring.single(), ("", deriveKey("clé")))
            self.assertEqual(len(keyring), 1)
        self.assertIs(Keyring.of(keyring), keyring)
        self.assertRaises(KeyringError, Keyring.of, b"")

    def test_bytes(self) -> None:
        """
        Text with surrogate escapes stands for the bytes that it was decoded from.  Text
        that cannot be encoded is refused, and the error shows none of it.
        """
        raw = "clé".encode("latin-1")
        self.assertEqual(
            Keyring.of(raw.decode("utf-8", "surrogateescape")).single()[1],
            deriveKey(raw),
        )
        error = self.assertRaises(KeyringError, Keyring.of, "secret \ud800")
        self.assertEqual(
            str(error), "the pre-shared key is not text that stands for bytes"
        )

    def test_several(self) -> None:
        """
        A keyring with several keys holds them by name, and C{single} raises an error.
        """
        keyring = Keyring({"alice": ALICE, "bob": BOB})
        self.assertEqual(
            dict(keyring.keys), {"alice": deriveKey(ALICE), "bob": deriveKey(BOB)}
        )
        self.assertEqual(len(keyring), 2)
        error = self.assertRaises(KeyringError, keyring.single)
        self.assertIn("there are 2", str(error))

    def test_unusable(self) -> None:
        """
        A keyring without a key, with an empty key, with the same key twice or with too
        many keys is refused.
        """
        self.refused({}, "there is no pre-shared key")
        self.refused(
            {"alice": ALICE, "bob": ""}, "the pre-shared key of 'bob' is empty"
        )
        self.refused(
            {"alice": ALICE, "bob": ALICE},
            "'alice' and 'bob' have the same pre-shared key",
        )
        many: dict[str, str | bytes] = {str(n): f"key {n}" for n in range(MAX_KEYS)}
        self.assertEqual(len(Keyring(many)), MAX_KEYS)
        self.refused({**many, "more": "key"}, "more than 256")

    def test_secret(self) -> None:
        """
        The repr of a keyring shows neither pre-shared keys nor derived ones.
        """
        keyring = Keyring({"alice": ALICE, "bob": "!secret!"})
        shown = f"{keyring!r} {keyring} {keyring.warnings}"
        self.assertIn("'alice', 'bob'", shown)
        derived = deriveKey(ALICE)
        for secret in (ALICE, "!secret!", derived.hex(), repr(derived)):
            self.assertNotIn(secret, shown)

    def test_warnings(self) -> None:
        """
        A short key, and a single key that looks like C{name:psk}, cause a warning.
        """
        self.assertEqual(Keyring({"alice": "x" * 16}).warnings, ())
        [warning] = Keyring({"alice": "x" * 15}).warnings
        self.assertEqual(
            warning, "the pre-shared key of 'alice' is shorter than 16 bytes"
        )
        [warning] = Keyring.of("alice:" + ALICE).warnings
        self.assertIn("looks like name:psk", warning)


class FileTests(SynchronousTestCase):
    """
    L{readPSKFile}
    """

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).resolve()

    def write(self, content: str | bytes, mode: int = 0o600) -> str:
        if isinstance(content, str):
            content = content.removesuffix("\n").encode() + b"\n"
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(content)
        self.path.chmod(mode)
        return str(self.path)

    def read(self, content: str | bytes) -> dict[str, bytes]:
        return dict(readPSKFile(self.write(content)).keys)

    def refused(self, content: str | bytes, message: str) -> None:
        path = self.write(content)
        error = self.assertRaises(KeyringError, readPSKFile, path)
        self.assertEqual(str(error), f"{path}: {message}")

    def test_single(self) -> None:
        """
        A single line is a key without a name; its line end, blank lines and comments
        are skipped.
        """
        for content, psk in (
            ("a key", b"a key"),
            ("a key\n", b"a key"),
            ("a key\r\n", b"a key"),
            (" a key \n\n", b" a key "),
            ("# For tests.\n\n  \na key\n#b\n", b"a key"),
            ("alice:key", b"alice:key"),
            (b"\xff\xfe\r\r\n", b"\xff\xfe\r"),
        ):
            self.assertEqual(self.read(content), {"": deriveKey(psk)})

    def test_several(self) -> None:
        """
        Each of several lines has a name, which ends at the first colon.
        """
        self.assertEqual(
            self.read("# Who may come.\nalice:a:b\r\n\nBob_2.x-: key \n"),
            {"alice": deriveKey("a:b"), "Bob_2.x-": deriveKey(" key ")},
        )

    def test_heading(self) -> None:
        """
        After the line C{[keyring]} even a single line has a name.
        """
        self.assertEqual(self.read("# x\n[keyring]\na:key\n"), {"a": deriveKey("key")})
        self.assertEqual(
            self.read("[keyring] \r\na:key\nb:other"),
            {"a": deriveKey("key"), "b": deriveKey("other")},
        )

    def test_unusable(self) -> None:
        """
        A file that cannot be used is refused with an error that names the line, and
        shows no key.
        """
        nothing = "has no pre-shared key"
        self.refused("", nothing)
        self.refused("\n# secret\n \n", nothing)
        self.refused("[keyring]\n", nothing)
        self.refused("a:secret\nsecret", "line 2 is not of the form name:psk")
        self.refused("[keyring]\nsecret", "line 2 is not of the form name:psk")
        self.refused("a:secret\n\nä:secret", "line 3 is not of the form name:psk")
        self.refused("a:x\n:secret", "line 2 is not of the form name:psk")
        self.refused(f"{'a' * 65}:x\nb:y", "line 1 is not of the form name:psk")
        self.refused("a:x\nb:y\na:x", "'a' has the same pre-shared key twice")
        self.refused("a:secret\nb:", "the pre-shared key of 'b' is empty")
        self.refused("a:x\nb:x", "'a' and 'b' have the same pre-shared key")
        self.refused("x" * (MAX_KEY_FILE + 1), "is larger than 262144 bytes")

    def test_missing(self) -> None:
        """
        The error for a file that cannot be read says why.
        """
        error = self.assertRaises(KeyringError, readPSKFile, str(self.path))
        self.assertEqual(str(error), f"{self.path}: No such file or directory")
        error = self.assertRaises(KeyringError, readPSKFile, os.curdir)
        self.assertEqual(str(error), f"{os.getcwd()}: Is a directory")

    def test_mode(self) -> None:
        """
        A file that others can read or change is refused, unless C{insecure} is true.  A
        file that its group can read is accepted.
        """
        for mode in (0o644, 0o604, 0o602, 0o620, 0o777):
            path = self.write("a key", mode)
            error = self.assertRaises(KeyringError, readPSKFile, path)
            self.assertIn(f"(its mode is {mode:04o})", str(error))
            self.assertEqual(len(readPSKFile(path, insecure=True)), 1)
        for mode in (0o600, 0o400, 0o640, 0o440):
            self.assertEqual(len(readPSKFile(self.write("a key", mode))), 1)

    def test_owner(self) -> None:
        """
        A file must be root's, or that of the user of the process or of the user that it
        will have.
        """
        path = self.write("a key")
        for user in (0, os.geteuid()):
            owned(self, user)
            self.assertEqual(len(readPSKFile(path)), 1)
        owned(self, 54321)
        error = self.assertRaises(KeyringError, readPSKFile, path)
        self.assertIn("its owner is user 54321", str(error))
        error = self.assertRaises(KeyringError, readPSKFile, path, user=54322)
        self.assertIn("change the owner to root or to user 54322", str(error))
        self.assertEqual(len(readPSKFile(path, user=54321)), 1)
        self.assertEqual(len(readPSKFile(path, insecure=True)), 1)

    def test_short(self) -> None:
        """
        With C{allowShort=False}, short keys are refused, also by a reload.
        """
        path = self.write("sixteen bytes...")
        keyring = readPSKFile(path, allowShort=False)
        self.write("fifteen bytes..")
        says = "the pre-shared key is shorter than 16 bytes"
        for read in (keyring.reload, lambda: readPSKFile(path, allowShort=False)):
            error = self.assertRaises(KeyringError, read)
            self.assertIn(says, str(error))
        self.assertRaises(KeyringError, Keyring, {"a": "x" * 15}, allowShort=False)
        self.assertEqual(len(readPSKFile(path)), 1)

    def test_twoOfOneName(self) -> None:
        """
        A name may stand twice, so that a peer can get another key.  If one of the keys
        goes, C{reload} returns the name.  C{single} says that there are two.
        """
        keyring = readPSKFile(self.write("[keyring]\na:1\na:2"))
        both = (("a", deriveKey("1")), ("a", deriveKey("2")))
        self.assertEqual(keyring.keys, both)
        error = self.assertRaises(KeyringError, keyring.single)
        self.assertEqual(
            str(error),
            "one pre-shared key is needed, and there are 2 of 'a'; keep the one to use",
        )
        self.write("[keyring]\na:2\na:3")
        self.assertEqual(keyring.reload(), {"a"})
        self.write("[keyring]\na:3\na:2\na:1")
        self.assertEqual(keyring.reload(), frozenset())
        self.assertEqual(Keyring([("a", "1"), ("a", b"2")]).keys, both)

    def test_halfWritten(self) -> None:
        """
        A file with names that ends in the middle of a line is refused, because a part
        of a key is easier to guess than the key.  A single key needs no newline.
        """
        whole = b"alice:" + ALICE.encode() + b"\nbob:" + BOB.encode()
        for content in (whole, b"[keyring]\n" + whole[:-7], b"[keyring]\nbob:x"):
            self.refused(
                content,
                "ends in the middle of a line, without a newline; is it being written?",
            )
        self.assertEqual(self.read(ALICE.encode()), {"": deriveKey(ALICE)})

    def test_directoryChanged(self) -> None:
        """
        A relative path names the same file after the process has changed its
        directory.
        """
        self.write("a:1\nb:2")
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.path.parent)
        keyring = readPSKFile(self.path.name)
        os.chdir("/")
        self.assertEqual(keyring.reload(), frozenset())

    def test_reload(self) -> None:
        """
        A reload returns the names that are gone or have another key.
        """
        keyring = readPSKFile(self.write("a:1\nb:2\nc:3"))
        before = keyring.keys
        self.write("b:2\nc:4\nd:5")
        self.assertEqual(keyring.reload(), {"a", "c"})
        self.assertEqual(
            dict(keyring.keys),
            {"b": deriveKey("2"), "c": deriveKey("4"), "d": deriveKey("5")},
        )
        self.assertEqual(keyring.names, {"b", "c", "d"})
        self.assertEqual(len(keyring.warnings), 3)
        self.assertEqual(list(dict(before)), ["a", "b", "c"])
        self.assertEqual(keyring.reload(), set())

    def test_reloadUnusable(self) -> None:
        """
        If the file cannot be used, the keys stay as they are.  A file that has become a
        single line cannot be used, because the line would be a key without a name.
        """
        keyring = readPSKFile(self.write("a:1\nb:2"))
        before = keyring.keys
        for content, mode, message in (
            ("a:1\nb", 0o600, "line 2"),
            ("a:1\nb:2\nc:3", 0o644, "others"),
            ("a:1", 0o600, "put a line [keyring] before it"),
        ):
            self.write(content, mode)
            error = self.assertRaises(KeyringError, keyring.reload)
            self.assertIn(f"{self.path}: ", str(error))
            self.assertIn(message, str(error))
            self.assertIs(keyring.keys, before)
        self.write("[keyring]\na:1")
        self.assertEqual(keyring.reload(), {"b"})

    def test_reloadPipe(self) -> None:
        """
        If the file has become a pipe, a reload fails at once, and does not wait for a
        process that writes to the pipe.
        """
        keyring = readPSKFile(self.write("a:1\nb:2"))
        self.path.unlink()
        os.mkfifo(self.path, 0o600)
        error = self.assertRaises(KeyringError, keyring.reload)
        self.assertIn("is not a regular file", str(error))
        self.assertEqual(len(keyring), 2)

    def test_noPermission(self) -> None:
        """
        The error for a file that the process may not read names the process's user,
        because the user differs from that of the start after C{twistd --uid}.
        """
        keyring = readPSKFile(self.write("a:1\nb:2"))

        def refuse(path: str, flags: int) -> int:
            raise PermissionError(13, "Permission denied")

        self.patch(os, "open", refuse)
        error = self.assertRaises(KeyringError, keyring.reload)
        self.assertIn(f"this process runs as user {os.geteuid()}", str(error))
        self.assertEqual(len(keyring), 2)

    def test_reloadNoFile(self) -> None:
        """
        A keyring that was not read from a file cannot be reloaded.
        """
        self.assertRaises(KeyringError, Keyring.of("a key").reload)


def keysFor(count: int) -> Keys:
    """
    @return: C{count} keys.  The names are the numbers from 0.
    """
    return tuple((str(number), deriveKey(str(number))) for number in range(count))


class KeySearchTests(SynchronousTestCase):
    """
    L{KeySearch}
    """

    def turns(self, count: int, psk: str) -> tuple[int, str | None]:
        """
        Search some keys for the key of a peer.

        @return: in which turn the search ends, counted from 0, and the name that it
            finds.
        """
        search = KeySearch(keysFor(count))
        frame = Sealer(deriveKey(psk), counter=77).seal(0, 0, 0)
        for turn in range(count + 1):
            try:
                name, key = search.open(*frame)
            except NotYet:
                continue
            except AuthenticationFailed:
                return turn, None
            self.assertEqual(key, deriveKey(psk))
            return turn, name
        self.fail("the search does not end")

    def test_oneTurn(self) -> None:
        """
        Up to L{KEYS_A_TURN} keys are all tried in the first turn.
        """
        for count in (1, 2, KEYS_A_TURN):
            self.assertEqual(self.turns(count, str(count - 1)), (0, str(count - 1)))
            self.assertEqual(self.turns(count, EVE), (0, None))

    def test_manyKeys(self) -> None:
        """
        If there are more keys, L{KEYS_A_TURN} of them are tried in each turn.
        """
        for turns in (1, 2, 15):
            last = str(turns * KEYS_A_TURN)
            count = turns * KEYS_A_TURN + 1
            self.assertEqual(self.turns(count, last), (turns, last))
            self.assertEqual(self.turns(count, "0"), (0, "0"))
            self.assertEqual(self.turns(count, EVE), (turns, None))

    def test_payload(self) -> None:
        """
        A frame with a payload, which no peer sends first, is not tried, unless it has
        the size of a hello of strict mode.
        """
        for size in (1, HELLO_SIZE - 1, HELLO_SIZE + 1, HELLO_SIZE):
            search = KeySearch(keysFor(10))
            frame = Sealer(deriveKey("3")).seal(0, 0, 0, bytes(size))
            if size == HELLO_SIZE:
                self.assertEqual(search.open(*frame)[0], "3")
            else:
                error = self.assertRaises(AuthenticationFailed, search.open, *frame)
                self.assertIn("carries data", str(error))


class KnownKeyTests(SynchronousTestCase):
    """
    L{KnownKey}
    """

    def test_passed(self) -> None:
        """
        The first genuine frame passes the gate.  This side may send before that.
        """
        gate = KnownKey("alice", deriveKey(ALICE))
        self.assertIsNotNone(gate.sealer)
        header, body = Sealer(deriveKey(ALICE)).seal(0, 1, Flag.DATA, b"x")
        self.assertFalse(gate.passed)
        self.assertEqual(gate.open(header, body), b"x")
        self.assertTrue(gate.passed)
        self.assertFalse(gate.ownsFrames)

    def test_stranger(self) -> None:
        """
        A frame under another key does not pass the gate.
        """
        gate = KnownKey("alice", deriveKey(ALICE))
        header, body = Sealer(deriveKey(EVE)).seal(0, 0, Flag.KEEPALIVE)
        self.assertRaises(AuthenticationFailed, gate.open, header, body)
        self.assertFalse(gate.passed)
        self.assertIsInstance(gate.interrupted(""), Truncated)

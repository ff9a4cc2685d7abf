"""
The fuzzer's first inputs.  Those of C{parser} and C{mux} are made from the recordings
of the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack

from gomux._wire.frame import Flag, Frame
from gomux.test.support.fuzzrequests import ENDS
from gomux.test.support.fuzztargets import Script
from gomux.test.support.recordings import SIDES, Session, sessions
from gomux.test.support.requestvectors import (
    ANSWERS,
    MALFORMED,
    NO_ANSWERS,
    REQUESTS,
)

#: The most bytes of a seed.
SIZE = 2048

#: Genuine handshakes, then what an attacker does: see L{fuzzstrict.Attack}.
_ATTACKS = [
    bytes([kind, *steps])
    for kind in (0, 1, 2, 4, 5, 8, 9, 16, 17)
    for steps in (
        # The handshake, in pieces of several sizes, and some frames.
        (0, 0, 0, 0, 7, 2, 7, 7),
        (0x10, 0, 0x10, 0, 0x17, 2),
        (0x60, 20, 0x20, 32, 0x30, 0, 0x40, 0, 10, 0, 7, 2),
        # Two frames together; the handshake replayed on the next carrier.
        (8, 1, 0, 0, 0, 0, 12, 0, 5, 0, 5, 0),
        (0, 0, 0, 0, 12, 0, 0x50, 52, 5, 0),
        # Streams that wait; the time runs out.
        (10, 0, 0, 0, 9, 5, 0, 0, 9, 7),
        (10, 0, 9, 7, 0, 0),
        # Changed, dropped and reflected frames.
        (2, 0, 0, 0),
        (0, 0, 2, 40),
        (3, 9, 0, 0),
        (4, 0, 0, 0, 4, 0),
        (1, 4, 1, 2, 3, 4, 0, 0),
        # Frames that have the key, but are none of the handshake.
        (6, 9, *bytes(28), 0, 0, 0, 0),
        (6, 1, *bytes(28), 0, 0),
        (0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0),
        (6, 0, *bytes(7), 1, 0, 0, 0, 0),
        # Ends of all kinds.
        *((0, 0, 10, 0, 11, way, 0, 0) for way in range(5)),
        *((0, 0, 0, 0, 10, 0, 11, way, 0, 0) for way in range(5)),
    )
]

#: What follows C{gomux:}, see L{fuzzstrings.strings}.
_STRINGS = [
    role + text
    for role in (b"\0", b"\xff")
    for text in (
        *(b"tcp:192.0.2.1:7000" + bytes([key]) for key in range(1, 9)),
        b"\x01:tcp:port=7000:host=example.org:timeout=7",
        b"tcp:7000:interface=127.0.0.1\x0e",
        b"tcp6:7000:interface=\\:\\:1\x0e",
        b"tcp:192.0.2.1:7000\x0e:strict=yes:context=a",
        b"tcp:192.0.2.1:7000\x0e:timeout=5:idleTimeout=inf",
        b"tcp:7000\x0e:service=chat",
        b"tcp:7000\x05:service=unnamed",
        b"tcp:7000\x05:service=a b",
        b"tcp:192.0.2.1:7000:context=a\x0e",
        b"tcp:192.0.2.1:7000\x02:allowShortPSK=yes",
        b"tcp:192.0.2.1:7000:psk=short",
        b"tcp:192.0.2.1:7000:psk=short:allowShortPSK=1",
        b"tcp:192.0.2.1:7000:psk=",
        b"tcp:192.0.2.1:7000:pskFile=/nonexistent:pskFileInsecure=yes",
        b"tcp:192.0.2.1:7000:pskFile=/:allowShortPSK=maybe",
        b"tcp:192.0.2.1:nothing\x03",
        b"unix:/tmp/a socket:mode=660\x0e",
        b"unix:address=/tmp/a socket:mode=x\x05",
        b"haproxy:tcp:7000\x0e",
        b"haproxy:unix:a\x04",
        b"haproxy\x06",
        b"stdio:\x0e",
        b"tls:example.org:443:bindAddress=192.0.2.2\x07",
        b"ssl:443:privateKey=a:certKey=b\x08",
        b"ssl:example.org:443:caCertsDir=/nonexistent\x0e",
        b"systemd:domain=INET:index=0\x01",
        b"fd:3\x01",
        b"tcp:7000:reactor=a:self=b\x0e",
        b"gomux:tcp:7000\x0e\x01",
        b"nothing:of:this=kind\x05",
        b"\x01",
        b"\x0e",
        b"",
        b"tcp:192.0.2.1:7000:psk=\\:\\\\=\xff",
    )
]

#: Files of keys, see L{fuzzkeyfile.keyfile}.
_KEYFILES = [
    bytes([selector]) + text
    for selector in (0, 2, 4, 5, 8 + 7)
    for text in (
        b"a key of more than 16 bytes\n",
        b"a key of more than 16 bytes",
        b"short\r\n",
        b"alice:a key of more than 16 bytes\n",
        b"# a comment\n\nalice:her key, of many bytes\nbob:short\n",
        b"[keyring]\nalice:her key, of many bytes\n",
        b"[keyring]\r\nalice:her key, of many bytes\r\n#alice:another\r\n",
        b"alice:her key, of many bytes\nbob:his key, 16 bytes\nalice:new, 16 bytes!\n",
        b"alice:her key, of many bytes\nbob:her key, of many bytes\n",
        b"alice:her key, of many bytes\nalice:her key, of many bytes\n",
        b"alice:her key, of many bytes\nthe key of bob is here\n",
        b"alice:her key, of many bytes\nbob:his key, of many by",
        b"alice:\nbob:\n",
        b"[keyring]\n",
        b"\n \n#\n",
        b"\xef\xbb\xbfalice:her key, of many bytes\n",
        b"a\0key\xff\xfe of \x85 many bytes\n",
        b"\x00\xd8\x41\x00\x00\xdc",
        b"",
    )
]

#: Requests and answers, see L{fuzzrequests.Exchange}.
_MESSAGES = [
    bytes([kind, end, size]) + text.encode()
    for texts, own in (
        ([text for text, _ in REQUESTS] + MALFORMED, 0),
        ([text for text, _ in ANSWERS] + NO_ANSWERS, 2),
    )
    for number, text in enumerate(texts)
    for kind, end, size in (
        (4 + own, number % len(ENDS), 0),
        (5 + 8 + own, number % len(ENDS), 1 + number % 50),
        (4 + 16 + own, 4 + number % 2, 7),
        (own, number % len(ENDS), 3),
    )
]

#: Files for C{--config}, and command lines, see L{fuzzconfig.config}.
_CONFIGS = [
    b'\0psk-file = "/dev/null"\nlisten = ["tcp:0"]\nforward = ["web@a=tcp:2"]\n',
    b'\0connect = ["tcp:h:1"]\nstrict = true\n[limits]\nmax-streams = 5\nping = 0.5\n',
    b'\0listen = ["tcp:0:\x01"]\nstrict-peer = ["\x01"]\ncontext = "\x01"\n',
    b'\0[peer.a]\nallow = ["web", "\x01"]\nmax-muxes = 3\n[peer."*"]\nallow = []\n',
    b'\0status = ["tcp:1"]\nstatus-host = ["\x01"]\naccess-log = "\x01"\n',
    b"\xff--listen\0tcp:0\0--forward\0web=tcp:1\0--max-streams\0\x01",
    b"\xff--connect\0gomux:tcp:h:1:\x01\0--target\0a=tcp:h:2\0--allow\0a=b,\x01",
    b"\xff--strict-peer\0a\0--strict\0--context\0c\0\x01\0--listen=tcp:\x01",
]

_WRITTEN = {
    "config": _CONFIGS,
    "strict": _ATTACKS,
    "strings": _STRINGS,
    "keyfile": _KEYFILES,
    "requests": _MESSAGES,
}


def seeds(target: str) -> Iterator[bytes]:
    """
    @return: the first inputs for a target.
    """
    for seed in _WRITTEN.get(target, ()):
        yield seed[:SIZE]
    make = {"parser": _bytes, "mux": _scripts}.get(target)
    if make is None:
        return
    for session in sessions():
        for side in SIDES:
            for seed in make(session, side):
                yield seed[:SIZE]


def _bytes(session: Session, side: str) -> Iterator[bytes]:
    """
    Generate the bytes that one side wrote, cut into pieces of different sizes.
    """
    written = session.bytesOf(side)
    yield bytes(8) + written
    yield b"\x33\x0f\xff\x00\x23\x10\x01\x80" + written


def _scripts(session: Session, side: str) -> Iterator[bytes]:
    """
    Generate scripts in which one side is the peer of a mux that opens the other side's
    streams.
    """
    if session.name == "wrongpsk":
        return
    other = SIDES[1 - SIDES.index(side)]
    opens = sum(frame[2] == Flag.OPEN_STREAM for frame in session.framesOf(other))
    steps = bytes([128 + Script.actions.index(Script.openStream), 0]) * min(opens, 8)
    steps += b"".join(map(_step, session.framesOf(side)))
    for strict in (0, 2):
        for behaviour in range(4):
            for kind in (0, 8 + 4):
                isClient = int(other == "client")
                yield bytes([kind + strict + isClient, behaviour]) + steps


def _step(frame: Frame) -> bytes:
    """
    Make the step of a script in which the peer sends a frame.
    """
    streamID, length, flag, _ = frame
    which = bytes([streamID]) if streamID < 0xF0 else b"\xff" + pack("<I", streamID)
    if flag not in (Flag.DATA, Flag.WINDOW_UPDATE):
        return bytes([flag]) + which
    if length > 65536:
        return bytes([flag + 16]) + which + pack("<HI", 0, length)
    if length == 65536:
        return bytes([flag + 8]) + which + pack("<H", 65535)
    return bytes([flag]) + which + pack("<H", length)

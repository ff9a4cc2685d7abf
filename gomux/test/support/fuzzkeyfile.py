# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The fuzz target C{keyfile}: files of pre-shared keys with arbitrary content.
"""

from __future__ import annotations

import os
import stat
from codecs import encode
from tempfile import NamedTemporaryFile

from gomux._wire import keyring
from gomux._wire.crypto import deriveKey
from gomux._wire.keyring import Keyring, readPSKFile
from gomux.error import KeyringError
from gomux.limits import SHORT_PSK

#: The keys with their names, and all text about them; no keys and an error's text.
Said = tuple[tuple[tuple[str, bytes], ...], str]

_UNSAFE = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP
#: The modes that a script can give a file.  All let the owner read.
_MODES = (0o600, 0o400, 0o640, 0o700, 0o604, 0o620, 0o602, 0o777)


def keyfile(data: bytes) -> None:
    """
    Read a file of keys.  The first byte selects the file's mode and whether it is
    accepted although it is insecure.  The rest is the file's content.
    """
    selector, content = data[0] if data else 0, data[1:]
    mode, insecure = _MODES[selector & 7], bool(selector & 8)
    with NamedTemporaryFile(prefix="gomux-fuzz-") as file:
        file.write(content)
        file.flush()
        os.chmod(file.name, mode)
        lax = _read(file.name, insecure, True)
        secure = _read(file.name, insecure, False)
        file.seek(0)
        file.truncate()
        file.write(masked(content))
        file.flush()
        assert _read(file.name, insecure, True)[1] == lax[1], "a key is shown"
        assert _read(file.name, insecure, False)[1] == secure[1], "a key is shown"
    if mode & _UNSAFE and not insecure:
        assert not lax[0], "an insecure file was accepted"
    candidates = _candidates(content)
    for keys, shortest in ((lax[0], 1), (secure[0], SHORT_PSK)):
        allowed = {deriveKey(key) for key in candidates if len(key) >= shortest}
        for name, key in keys:
            assert key in allowed, "a key is too short, or is not in the file"
            assert not name or f"{name}:".encode() in content, "a name is not there"
    if secure[0]:
        assert secure == lax, "a secure file was read in two ways"
    _text(content)


def masked(content: bytes) -> bytes:
    """
    Replace the letters and digits of all keys by others, so that different keys stay
    different.  Names and comments stay.

    @param content: the content of a file.
    @return: the content of a file whose errors must be the same.
    """
    lines = content.split(b"\n")
    entries = [line for line in lines if line.strip() and not line.startswith(b"#")]
    for number, line in enumerate(lines):
        if line.startswith(b"#") or line.rstrip() == keyring.HEADING:
            continue
        name, colon, psk = line.partition(b":")
        if len(entries) == 1 or not colon:
            lines[number] = _mask(line)
        else:
            lines[number] = name + colon + _mask(psk)
    return b"\n".join(lines)


_PLAIN = bytes(range(256))
_ROTATED = encode(_PLAIN.decode("latin-1"), "rot13").encode("latin-1")
_MASK = _ROTATED.translate(bytes.maketrans(b"0123456789", b"5678901234"))


def _mask(part: bytes) -> bytes:
    return part.translate(_MASK)


def _candidates(content: bytes) -> set[bytes]:
    """
    @return: all that could be a key in a file: whole lines, and what follows the first
        colon of a line.
    """
    lines = [line.removesuffix(b"\r") for line in content.split(b"\n")]
    return {*lines, *(line.partition(b":")[2] for line in lines)} - {b""}


def _read(path: str, insecure: bool, allowShort: bool) -> Said:
    """
    Read a file, and read it again.

    @return: its keys, and all text about them; no keys if the file was not accepted.
    """
    try:
        read = readPSKFile(path, insecure, allowShort=allowShort)
    except KeyringError as error:
        assert error.__cause__ is None, "the error shows another"
        return (), str(error)
    keys = read.keys
    assert read.reload() == frozenset(), "a key is gone"
    assert read.keys == keys, "the file was read in two ways"
    assert readPSKFile(path, insecure, allowShort=allowShort).keys == keys
    said = [repr(read), *read.warnings]
    try:
        assert (read.single(),) == keys
    except KeyringError as error:
        assert len(keys) > 1
        said.append(str(error))
    return keys, "\n".join(said)


def _text(content: bytes) -> None:
    """
    Take the content as text, which may have surrogates, for a single key.
    """
    whole = content[: len(content) & ~1]
    text = whole.decode("utf-16-le", "surrogatepass")
    try:
        Keyring((("", text),))
    except KeyringError as error:
        assert len(text) < SHORT_PSK or text not in str(error), "a key is shown"

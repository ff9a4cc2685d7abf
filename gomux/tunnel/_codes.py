# -*- test-case-name: gomux.test.tunnel.test_answers -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The codes with which a tunnel tells the peer why a target cannot be connected.
"""

from __future__ import annotations

from twisted.internet import defer
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.python.failure import Failure

from gomux.error import RequestRefused


def codeOf(failure: Failure) -> str:
    """
    @param failure: why a target cannot be connected.
    @return: the code of the refusal for the peer.
    """
    error = failure.value
    if isinstance(error, RequestRefused):
        return error.code
    for code, kinds in (
        ("refused", (ConnectionRefusedError,)),
        ("timeout", (TimeoutError, TCPTimedOutError, defer.TimeoutError)),
        ("unreachable", (ConnectError, DNSLookupError)),
    ):
        if isinstance(error, kinds):
            return code
    return "failed"

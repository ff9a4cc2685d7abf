"""
The rows of the fault table, and the reasons why some cells of the matrix have no test.
"""

from __future__ import annotations

from interop.faults.cases import CLIENT, GO_CLIENT, GO_SERVER, SERVER

ROWS = {
    1: "one stream's reader is slow",
    2: "all readers paused",
    3: "data one byte over the window",
    4: "credit past 2**31",
    5: "credit of 0; more than was sent",
    6: "flood of OpenStream",
    7: "rapid reset; ordinary churn",
    8: "closed streams count until done",
    9: "flood of empty Data",
    10: "flood of 1-byte Data",
    11: "flood of Keepalives, unknown flags",
    12: "credit of 1 byte",
    13: "peer sends but never reads",
    14: "wrong key, seen by the server",
    15: "wrong key, seen by the client",
    16: "garbage, HTTP, TLS",
    17: "truncation within a frame",
    18: "a flipped bit",
    19: "length too large",
    20: "length where there is no payload",
    21: "unknown flags",
    22: "OpenStream for a live ID",
    23: "OpenStream of our own parity",
    24: "IDs out of order",
    25: "IDs run out",
    26: "late frames after CloseStream",
    27: "data for a stream never opened",
    28: "data after CloseRead",
    29: "crossing closes, orders of half-closes",
    30: "FIN without CloseMux",
    31: "RST within a frame",
    32: "CloseMux with open streams",
    33: "frames after CloseMux",
    34: "peer vanishes",
    35: "connections that stay silent",
    36: "EMFILE",
    37: "target refuses, times out, is unknown",
    38: "target resets",
    39: "a stall shorter than the time limit",
    40: "kill -9 under load",
    41: "1000 clients wait for a server",
    42: "reconnect with streams open",
    43: "SIGTERM under load",
    44: "replay, drop, swap, reflect, splice",
    45: "strict: old salt, own salt, silence",
    46: "strict against the reference",
    47: "the nonces run out",
    48: "the application raises",
    49: "200 streams, bulk both ways",
    50: "credit of up to 131072",
    51: "the key is never shown",
    52: "the system's clock is set",
    53: "an end is cut while its data waits",
    54: "refused streams",
    55: "transports that are no TCP",
    56: "the PROXY protocol",
    57: "IDs run out beside a stream that stays",
    58: "a peer comes back by another path",
    59: "a mux ends, and targets read nothing",
    60: "one half closed, the other silent",
    61: "one key takes all that others need",
    62: "1000 strangers connect a second",
    63: "garbage is tried with 256 keys",
    64: "abuse of the page for a peer's streams",
    65: "CloseWrite, and the target goes on",
    66: "a key is revoked, and what of it waits",
    67: "reload of a changed, spoilt, moved file",
    68: "keys that are not ASCII",
    69: "the start fails",
    70: "every signal twice",
    71: "applications and endpoints raise",
    72: "a mux comes up during the stop",
    73: "liveness faked by held-back bytes",
    74: "strict: connected with itself, redirected",
    75: "a recorded first frame",
    76: "a stranger is sent nothing",
    77: "made-up text in the log",
    78: "Unix sockets that are made",
    79: "1000 muxes of a peer, filled",
    80: "requests: malformed, slow, huge, forbidden",
    81: "programs ask a stream for its addresses",
    82: "small writes over TLS in a stream",
    83: "thousands of connects before a mux is up",
    84: "the reactor stops",
    85: "wrong key, seen by a program that retries",
    86: "whose log lines they are",
    87: "names with several addresses, bad names",
    88: "TCP urgent data",
    89: "connections without a byte",
    90: "bursts of connections to be forwarded",
    91: "connections to haproxy: without a header",
    92: "idle connections of one address",
}

UNSENDABLE = "the reference has no call that sends this"
SAME = "nothing in these rows depends on the peer"
STRICT = "the reference neither greets nor speaks strict mode"

#: Rows in which nothing depends on the peer.
NO_PEER = (
    *(8, 25, 36, 37, 41, 42, 43, 51),
    *(52, 53, 54, 55, 56, 57, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70),
    *(71, 72),
    *(75, 76, 77, 78, 79, 80),
    *(81, 82, 83, 84, 85, 86, 87, 88, 89, 90),
    *(91, 92),
)

NOT_APPLICABLE: dict[tuple[int, str], str] = {
    **{
        (number, pairing): UNSENDABLE
        for number in (3, 4, 5, 9, 11, 12, 16, 19, 20, 21, 22, 23, 27, 28, 33)
        for pairing in (GO_CLIENT, GO_SERVER)
    },
    **{
        (number, pairing): SAME
        for number in NO_PEER
        for pairing in (GO_CLIENT, GO_SERVER)
    },
    **{
        (number, pairing): STRICT
        for number in (44, 45, 47, 73, 74)
        for pairing in (GO_CLIENT, GO_SERVER)
    },
    (35, CLIENT): "a client chooses the server that it connects to",
    (35, GO_SERVER): "a client chooses the server that it connects to",
    (46, SERVER): "this row is about the reference",
    (46, CLIENT): "this row is about the reference",
    (41, SERVER): "this row is about clients",
    (58, CLIENT): "a client has one mux to each server",
    (58, GO_CLIENT): "a Go peer answers no pings",
    (58, GO_SERVER): "a client has one mux to each server",
    **{
        (number, CLIENT): "a client chooses the server that it connects to"
        for number in (61, 62, 63, 66, 75, 76, 79, 91, 92)
    },
    (64, CLIENT): SAME,
    (68, CLIENT): SAME,
    (69, CLIENT): SAME,
    (77, CLIENT): SAME,
    (83, SERVER): "this row is about clients",
    (85, SERVER): "this row is about clients",
    (89, CLIENT): "this row is about servers",
    (90, SERVER): "this row is about clients",
}

REFERENCE_FAILS = {
    2: "two peers that both write and do not read wait for each other for ever",
    3: "unread data is overwritten",
    6: "past 256 streams not accepted yet, its reader stops, and with it all streams",
    7: "it has no limit for this",
    9: "it has no limit for this",
    11: "it has no limit for this",
    22: "it does not check this",
    23: "it does not check this",
    30: "it looks like any other error",
    44: "only peers that greet and strict mode detect this, and it has neither",
    49: "between two processes of it, two streams can wait for each other for ever",
    50: "between two processes of it the mux ends: it refuses credit that it sends",
}
"""Known problems of the reference; C{interop/README.rst} says more."""

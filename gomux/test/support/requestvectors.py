# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
The test vectors of requests and answers, computed from docs/protocol.rst.

This shares no code with the package.  Run as a program, it prints the contents of
C{vectors/requests.json}.
"""

import json

from gomux.test.support.greetingvectors import CLIENT, SERVER, frame, recorded

#: Requests that are valid, with what they ask for.
REQUESTS: list[tuple[str, dict[str, object]]] = [
    ('{"service":"chat"}', {"service": "chat"}),
    (' { "service" : "A.z_0-9" } ', {"service": "A.z_0-9"}),
    ('{"service":"' + 64 * "x" + '"}', {"service": 64 * "x"}),
    ('{"service":"chat","later":[{"a":null}]}', {"service": "chat"}),
    (
        '{"service":"ssh","from":"192.0.2.1:49152","to":"unix:/run/ssh.sock"}',
        {"service": "ssh", "from": "192.0.2.1:49152", "to": "unix:/run/ssh.sock"},
    ),
    ('{"service":"chat","x":[' + 62 * "{}," + "1]}", {"service": "chat"}),
    ('{"connect":"example.org:22"}', {"connect": ["example.org", 22]}),
    ('{"connect":"[2001:db8::1]:65535"}', {"connect": ["2001:db8::1", 65535]}),
    (
        '{"connect":"192.0.2.1:1","from":"[::1]:0"}',
        {"connect": ["192.0.2.1", 1], "from": "[::1]:0"},
    ),
    ('{"service":"chat","pad":"' + 4069 * "x" + '"}', {"service": "chat"}),
]

#: Requests that are malformed.
MALFORMED = [
    "",
    "{}",
    "null",
    '["service"]',
    '"chat"',
    '{"service":"chat"',
    '{"service":"chat"}x',
    "{'service':'chat'}",
    '\ufeff{"service":"chat"}',
    '{"service":"chat","connect":"example.org:22"}',
    '{"service":"chat","service":"chat"}',
    '{"service":"chat","x":{"y":1,"y":1}}',
    '{"service":"chat","x":NaN}',
    '{"service":""}',
    '{"service":"unnamed"}',
    '{"service":"' + 65 * "x" + '"}',
    '{"service":"ch\\u00e4t"}',
    '{"service":"chat\\n"}',
    '{"service":null}',
    '{"service":["chat"]}',
    '{"service":7}',
    '{"connect":"example.org"}',
    '{"connect":"example.org:0"}',
    '{"connect":"example.org:65536"}',
    '{"connect":"2001:db8::1:22"}',
    '{"connect":"exam ple.org:22"}',
    '{"connect":"example.org:+22"}',
    '{"connect":22}',
    '{"service":"chat","from":"nowhere"}',
    '{"service":"chat","to":7}',
    '{"service":"chat","x":' + 4000 * "[",
    '{"service":"chat","x":[' + 63 * "[]," + "1]}",
]

#: Answers, with the code of each; C{None} to accept.
ANSWERS: list[tuple[str, object]] = [
    ('{"ok":true}', None),
    ('{"ok":true,"later":1}', None),
    *(
        (f'{{"error":"{code}","reason":"any text"}}', code)
        for code in ("unknown", "not-allowed", "refused", "unreachable", "timeout")
    ),
    ('{"error":"busy"}', "busy"),
    ('{"error":"failed","reason":""}', "failed"),
    ('{"error":"a code of a later version"}', "failed"),
]

#: Answers that are malformed.
NO_ANSWERS = [
    "",
    "{}",
    "[]",
    '{"ok":false}',
    '{"ok":1}',
    '{"ok":true,"error":"busy"}',
    '{"error":7}',
    '{"error":"busy","reason":7}',
    '{"ok":true,"x":[' + 63 * "[]," + "1]}",
]


def message(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return len(encoded).to_bytes(2, "little") + encoded


def vectors() -> dict[str, object]:
    """
    @return: the messages, and the frames of a mux in the order in which they are sent.
    """
    chat, none = message('{"service":"chat"}'), message('{"service":"none"}')
    accepted = message('{"ok":true}')
    unknown = message('{"error":"unknown","reason":"there is no such service"}')
    frames = [
        ("client", "greeting, with bit 0", frame(CLIENT, 0, 0, 1, 1)),
        ("server", "greeting, with bit 0", frame(SERVER, 0, 0, 1, 1)),
        ("client", "OpenStream 0, with a request", frame(CLIENT, 1, 0, 1, 2)),
        ("client", "the request", frame(CLIENT, 2, 0, len(chat), 0, chat)),
        ("server", "the answer", frame(SERVER, 1, 0, len(accepted), 0, accepted)),
        ("client", "5 bytes of data", frame(CLIENT, 3, 0, 5, 0, b"hello")),
        ("client", "OpenStream 2, with a request", frame(CLIENT, 4, 2, 1, 2)),
        ("client", "the request", frame(CLIENT, 5, 2, len(none), 0, none)),
        ("server", "the refusal", frame(SERVER, 2, 2, len(unknown), 0, unknown)),
        ("server", "CloseStream 2", frame(SERVER, 3, 2, 0, 5)),
        ("client", "CloseStream 2", frame(CLIENT, 6, 2, 0, 5)),
    ]
    return {
        **recorded(frames),
        "requests": [
            {"message": message(text).hex(), "request": request}
            for text, request in REQUESTS
        ],
        "malformedRequests": [message(text).hex() for text in MALFORMED],
        "answers": [
            {"message": message(text).hex(), "code": code} for text, code in ANSWERS
        ],
        "malformedAnswers": [message(text).hex() for text in NO_ANSWERS],
    }


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))

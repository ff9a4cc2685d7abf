"""
Faults and abuse: the subject and its peer are both this project.
"""

from __future__ import annotations

from interop.faults import rows
from interop.faults.cases import CLIENT, SERVER


class LiveAsServer(rows.LiveRows):
    """
    The subject is the server.
    """

    pairing = SERVER


class LiveAsClient(rows.LiveRows):
    """
    The subject is the client.
    """

    pairing = CLIENT
    listens = False

"""
Faults and abuse: this project with itself.
"""

from __future__ import annotations

from interop.faults import rows
from interop.faults.cases import CLIENT, SERVER


class LiveAsServer(rows.LiveRows):
    """
    The subject as server.
    """

    pairing = SERVER


class LiveAsClient(rows.LiveRows):
    """
    This project with itself, the subject as client.
    """

    pairing = CLIENT
    listens = False

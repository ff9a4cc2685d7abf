"""
Links to Twisted's API reference, without the network.

Twisted's site has an inventory of its names.  A build that fetches it fails when the
site does.  So this makes an inventory of the names that are used here, from the
installed Twisted.  A name that Twisted does not have is left out, and so becomes a
warning.
"""

import ast
import inspect
import re
import tempfile
import zlib
from pathlib import Path

from twisted.python.reflect import namedAny

URL = "https://docs.twisted.org/en/stable/api/"

_name = re.compile(r"\btwisted(?:\.\w+)+")


def namesIn(source: str) -> set[str]:
    """
    Find Twisted's names in a text, and in what a module imports.
    """
    names = set(_name.findall(source))
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return names
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] == "twisted":
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def entry(name: str) -> str | None:
    """
    Make the inventory's line for a name.
    """
    try:
        thing = namedAny(name)
    except Exception:
        return None
    module, _, last = name.rpartition(".")
    if inspect.ismodule(thing):
        return f"{name} py:module -1 {name}.html -"
    if inspect.isclass(thing) or hasattr(thing, "providedBy"):
        return f"{name} py:class -1 {name}.html -"
    kind = "function" if inspect.ismodule(namedAny(module)) else "method"
    return f"{name} py:{kind} -1 {module}.html#{last} -"


def writeInventory(root: Path) -> Path:
    """
    Write an inventory of the names in the package and in the documentation.

    @return: where it is.
    """
    names: set[str] = set()
    for pattern in ("gomux/**/*.py", "docs/**/*.rst", "docs/**/*.py"):
        for path in root.glob(pattern):
            names |= namesIn(path.read_text())
    lines = filter(None, map(entry, sorted(names)))
    head = (
        "# Sphinx inventory version 2\n# Project: Twisted\n# Version: stable\n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    path = Path(tempfile.mkdtemp(prefix="gomux-docs-")) / "twisted.inv"
    path.write_bytes(head.encode() + zlib.compress("\n".join(lines).encode() + b"\n"))
    return path

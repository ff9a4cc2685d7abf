"""
The directive C{limits}: a table of the fields of a dataclass, with their defaults and
their descriptions from the docstring.
"""

import re
from dataclasses import fields
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from twisted.python.reflect import namedAny


def asRST(text: str) -> str:
    """
    Turn the inline markup of epytext into that of these pages.
    """
    text = re.sub(r"[A-Z]\{[^<{}]*<([^<>{}]*)>\}", r"`\1`", " ".join(text.split()))
    return re.sub(r"[A-Z]\{([^{}]*)\}", r"``\1``", text)


def describe(kind: Any) -> dict[str, str]:
    """
    Read what a class's docstring says of each field.
    """
    parts = re.split(r"@ivar (\w+):\s", kind.__doc__)[1:]
    texts = (text.split("\n\n")[0] for text in parts[1::2])
    return dict(zip(parts[::2], map(asRST, texts), strict=True))


def number(value: float | None) -> str:
    """
    Write the default of a field.
    """
    return "none" if value is None else f"{value:,}"


class LimitsTable(SphinxDirective):
    """
    C{.. limits:: DOTTED.NAME}
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        kind = namedAny(self.arguments[0])
        meanings = describe(kind)
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 22 14 64", ""]
        for row in [
            ("field", "default", "meaning"),
            *(
                (f"``{field.name}``", number(field.default), meanings[field.name])
                for field in fields(kind)
            ),
        ]:
            lines += [f"   * - {row[0]}", f"     - {row[1]}", f"     - {row[2]}"]
        node = nodes.container()
        source = StringList(lines, self.arguments[0])
        self.state.nested_parse(source, self.content_offset, node)
        return node.children


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("limits", LimitsTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

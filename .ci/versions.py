"""
Run C{trial gomux} with the oldest or the newest versions that pyproject.toml allows.

    python .ci/versions.py floors   each dependency at its lower bound, on the oldest
                                    Python that is found
    python .ci/versions.py newest   the newest releases, on the newest Python

Pythons are looked for on the PATH, in pyenv's directory, and this one is always there.
The dependencies that only tests need are not held to their lower bounds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Minor versions of Python 3 to look for; the first is that of C{requires-python}.
MINORS = range(10, 15)

PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")

UNWANTED = shutil.ignore_patterns(
    ".git", "venv", "_trial_temp*", "__pycache__", "log", "*.egg-info", "build"
)


def floors(pyproject: str) -> list[str]:
    """
    @param pyproject: the text of pyproject.toml.
    @return: each dependency of the package and of its extras, at its lower bound.
    """
    lists = re.findall(
        r"^(?:dependencies|metrics|tls) = \[(.*?)\]$", pyproject, re.M | re.S
    )
    return [
        requirement.replace(">=", "==")
        for text in lists
        for requirement in re.findall(r'"([^"]+)"', text)
    ]


def pythons() -> dict[int, str]:
    """
    @return: a working interpreter per minor version of Python 3.
    """
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = {sys.version_info.minor: sys.executable}
    for minor in MINORS:
        name = f"python3.{minor}"
        places = [*os.environ["PATH"].split(os.pathsep)]
        places += map(str, sorted(root.glob(f"versions/3.{minor}.*/bin")))
        for place in places:
            candidate = os.path.join(place, name)
            # A shim of pyenv exists for versions that are not in use, and fails.
            test = [candidate, "-c", "import venv, ensurepip, ssl, sqlite3"]
            if os.access(candidate, os.X_OK) and not (
                subprocess.run(test, capture_output=True, check=False).returncode
            ):
                found.setdefault(minor, candidate)
                break
    return found


def main(leg: str) -> int:
    found = pythons()
    minor = min(found) if leg == "floors" else max(found)
    pins = floors((ROOT / "pyproject.toml").read_text()) if leg == "floors" else []
    with tempfile.TemporaryDirectory(prefix="gomux-versions-") as temporary:
        # A copy: two installations of one checkout would meet in its build directories.
        source = Path(temporary) / "source"
        shutil.copytree(ROOT, source, ignore=UNWANTED)
        binaries = Path(temporary) / "venv" / "bin"
        subprocess.run([found[minor], "-m", "venv", binaries.parent], check=True)
        python = str(binaries / "python")
        subprocess.run(
            [python, *PIP, "install", "--editable", f"{source}[test]", *pins],
            check=True,
        )
        listing = subprocess.check_output([python, *PIP, "freeze"], text=True)
        path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [binaries / "trial", "gomux"],
            cwd=temporary,
            env={**os.environ, "PATH": path},
            check=False,
        )
    print(listing)
    shown = ", ".join(
        line
        for line in listing.splitlines()
        if re.match("(twisted|cryptography|pyopenssl)==", line, re.I)
    )
    print(f"Python 3.{minor}, {shown}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

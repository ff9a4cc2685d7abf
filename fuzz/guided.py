"""
The program that runs one target under atheris.  Its arguments are the target's name and
the options of atheris.
"""

from __future__ import annotations

import sys

import atheris
from twisted.logger import globalLogBeginner

with atheris.instrument_imports(include=["gomux"]):
    from gomux.test.support.fuzztargets import TARGETS

if __name__ == "__main__":
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    target = sys.argv[1]
    # To merge, libFuzzer runs this program again through the shell.
    itself = f"{sys.executable} -m fuzz.guided {target}"
    atheris.Setup([itself, *sys.argv[2:]], TARGETS[target])
    atheris.Fuzz()

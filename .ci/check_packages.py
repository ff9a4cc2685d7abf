"""
Build the wheel and the sdist.  Check for each way to install gomux that C{twistd} has
the plugin after the installation, and does not have it after the removal.

Run this from the checkout's root, with an interpreter that has C{build}.  The wheel is
installed in an environment with the newest dependencies.  The sdist is installed in one
with the oldest dependencies allowed, where the package's own tests run too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: A program that uses both kinds of endpoint plugin; no carrier is connected.
PARSE = """
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, serverFromString
clientFromString(reactor, "gomux:tcp:localhost:7000:psk=0123456789abcdef")
serverFromString(reactor, "gomux:tcp:7000:psk=0123456789abcdef")
"""


def run(*argv: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """
    Run a command.

    @return: The output of the command.
    @raise SystemExit: If the command fails.
    """
    print("$", *argv, flush=True)
    result = subprocess.run(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        print(result.stdout)
        sys.exit(f"exit status {result.returncode}")
    return result.stdout


def require(condition: object, message: str) -> None:
    if not condition:
        sys.exit(message)


def packaged(path: str) -> bool:
    """
    Tell whether a file of the repository belongs in the wheel.
    """
    return re.match(r"gomux/.*|twisted/plugins/.*\.py$|man/.*\.1$", path) is not None


class Environment:
    """
    A fresh virtual environment.

    @ivar elsewhere: An empty directory to run programs in, so that only installed
        packages can be found.
    """

    def __init__(self, path: Path) -> None:
        run(sys.executable, "-m", "venv", path, cwd=path.parent)
        self.bin = path / "bin"
        self.elsewhere = path / "elsewhere"
        self.elsewhere.mkdir()

    def run(self, program: str, *arguments: str | Path, path: str = "") -> str:
        """
        Run one of the environment's programs.

        @param path: The C{PYTHONPATH} of the program.
        """
        environment = {**os.environ, "PYTHONPATH": path}
        return run(self.bin / program, *arguments, cwd=self.elsewhere, env=environment)

    def pip(self, *arguments: str | Path) -> None:
        self.run("pip", *arguments, "--quiet")

    def twistd(self, form: str, *, path: str = "", found: bool = True) -> None:
        """
        Check whether C{twistd} lists gomux, first without and then with its plugin
        cache.

        @param form: The way of installation, for messages.
        @param found: Whether gomux must be listed.
        """
        for sight in ("first", "second"):
            output = self.run("twistd", "--help", path=path)
            listed = re.search(r"^ +gomux ", output, re.MULTILINE) is not None
            require(listed == found, f"{form}, {sight} sight: gomux listed: {listed}")
            for trouble in ("Traceback", "Error", "Unable", "Warning"):
                require(trouble not in output, f"{form}: {output}")
        print(f"{form}: twistd {'lists' if found else 'does not list'} gomux")

    def use(self, form: str, *, path: str = "") -> None:
        """
        Check that the plugins work.
        """
        self.twistd(form, path=path)
        self.run("twistd", "gomux", "--help", path=path)
        self.run("python", "-c", PARSE, path=path)


def build(directory: Path) -> tuple[Path, Path]:
    """
    Build from the tracked files alone, and check the files in the wheel.

    @return: The wheel and the sdist.
    """
    tracked = run("git", "ls-files", "-z", cwd=ROOT).split("\0")[:-1]
    source = directory / "source"
    for name in filter(os.path.isfile, tracked):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    # The wheel is built from the sdist, so a file that the sdist lacks is missing in
    # the wheel too.
    run(sys.executable, "-m", "build", "--outdir", directory, cwd=source)
    [wheel], [sdist] = directory.glob("*.whl"), directory.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        inside = {
            re.sub(r"^gomux-.*\.data/data/share/man/man1/", "man/", name)
            for name in archive.namelist()
            if ".dist-info/" not in name
        }
    difference = inside ^ set(filter(packaged, tracked))
    require(not difference, f"wheel and repository differ: {sorted(difference)}")
    return wheel, sdist


def oldest(wheel: Path) -> list[str]:
    """
    @return: The run-time dependencies, each at its lower bound.
    """
    with zipfile.ZipFile(wheel) as archive:
        [name] = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    needed = re.findall(r"^Requires-Dist: ([^;\n]+)$", metadata, re.MULTILINE)
    return [requirement.replace(">=", "==") for requirement in needed]


def main() -> None:
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="gomux-packages-") as temporary:
        directory = Path(temporary)
        wheel, sdist = build(directory)

        newest = Environment(directory / "newest")
        newest.pip("install", "twisted")
        newest.twistd("nothing", found=False)
        newest.pip("install", wheel)
        newest.use("wheel")
        page = newest.bin.parent / "share" / "man" / "man1" / "twistd-gomux.1"
        require(page.exists(), "wheel: there is no manual page")
        newest.pip("uninstall", "--yes", "gomux")
        newest.twistd("uninstalled", found=False)
        newest.use("checkout", path=str(directory / "source"))
        newest.pip("install", "--editable", directory / "source")
        newest.use("editable")

        old = Environment(directory / "oldest")
        old.pip("install", sdist, *oldest(wheel))
        old.use("sdist")


if __name__ == "__main__":
    main()

"""Everything that a release uploads, built and tried. Started by script/wheels, with the tools' own interpreter.

Theory of operation. The source distribution is made first, and all else comes from it: the wheels, and the tests that
they have to pass. A compiled wheel is built in an isolated environment by the CPython that it is for, while the C
compiler is zig's: it brings the headers and symbol lists of old C libraries, so that what it links for glibc 2.17 runs
wherever pip takes ``manylinux2014``, although it was built on a newer system. auditwheel looks at what was linked, and
refuses the tag if that is not so.

Each wheel is installed into a fresh environment, and has to pass the unit tests there, and one message's way through a
real broker. The tests come from the source distribution, whose package is replaced by a link to what was installed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".run/wheels"
PLATFORM = "manylinux2014_x86_64"
"""Linux with glibc 2.17 or later, which is any that is still supported; pip has known the name since 19.3."""
TARGET = "x86_64-linux-gnu.2.17"
"""The same, as zig calls it."""
COMPILER = """#!/bin/sh
exec {python} -m ziglang cc -target {target} -idirafter /usr/include "$@"
"""
"""Debian has a part of Python's headers in a folder that it names from there. Last, so that the C library's headers are
zig's."""
EXTRAS = "demo,docs,examples,test"
"""What the tests need, as in script/bootstrap."""
SMOKE = (
    "tests.integration.test_message_way.MessageWayTests.test_good_messages_are_stored_and_bad_ones_kept_with_a_reason"
)
_RESULT = re.compile(r"^Ran (\d+) tests in .*\n\nPASSED \((.*)\)$", re.M)


class Failed(Exception):
    """One step did not work; the message says which, and what it printed."""


def versions(setup_cfg: str) -> list[str]:
    """The Pythons that the classifiers name, such as ``3.10``, oldest first."""
    return re.findall(r"^ *Programming Language :: Python :: (3\.\d+)$", setup_cfg, re.M)


def compiled_name(version: str, python: str) -> str:
    """A pattern for the file names of compiled wheels of a version of ours, for one Python."""
    tag = "cp" + python.replace(".", "")
    return f"amqprouter-{version}-{tag}-{tag}-*{PLATFORM}*.whl"


def passed(output: str, *, skipped: bool) -> int:
    """How many tests passed, by trial's output.

    :param skipped: whether some may have been skipped.
    :raises Failed: some failed, or were skipped, or none passed.
    """
    result = _RESULT.search(output)
    counts = dict(pair.split("=") for pair in result[2].split(", ")) if result else {}
    if "successes" not in counts or ("skips" in counts and not skipped):
        raise Failed(output[-4000:])
    return int(counts["successes"])


def tests_of(sdist: Path, installed: Path, folder: Path) -> Path:
    """The unpacked source distribution, with links to the installed package and plugins in place of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # type: ignore[arg-type]
    (tree,) = folder.iterdir()
    shutil.rmtree(tree / "amqprouter")
    shutil.rmtree(tree / "twisted")
    (tree / "amqprouter").symlink_to(installed)
    (tree / "twisted/plugins").mkdir(parents=True)
    for plugin in (installed.parent / "twisted/plugins").glob("amqprouter_*.py"):
        (tree / "twisted/plugins" / plugin.name).symlink_to(plugin)
    return tree


class Builder:
    """Builds and tries, with the tools in the directory `tools`; finished files go to `output`."""

    def __init__(self, tools: Path, work: Path, output: Path) -> None:
        self._tools = tools
        self._work = work
        self._output = output
        self._logs = work / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._environ = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "VIRTUAL_ENV", "AMQPROUTER_COMPILE"))
        }
        self._environ["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
        if shutil.which("pyenv"):  # or its commands say only that a version is not the chosen one
            every = self._run("pyenv", "pyenv", "versions", "--bare").split()
            self._environ["PYENV_VERSION"] = ":".join(every)

    def _run(
        self,
        step: str,
        *command: str | Path,
        cwd: Path = ROOT,
        timeout: float = 900,
        environ: Mapping[str, str] | None = None,
    ) -> str:
        """What a command prints, which is also in the log of this step.

        :raises Failed: it ended with an error, or took longer than `timeout` seconds.
        """
        log = self._logs / f"{step}.log"
        with log.open("w") as file:
            try:
                ended = subprocess.run(
                    [str(part) for part in command],
                    cwd=cwd,
                    env={**self._environ, **(environ or {})},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=timeout,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise Failed(f"{step} took longer than {timeout:.0f} s; see {log}") from None
        output = log.read_text(errors="replace")
        if ended:
            raise Failed(f"{step} failed; all of the output is in {log}\n{output[-4000:]}")
        return output

    def source(self) -> Path:
        """Make the source distribution, and the wheel of Python alone, as ``python -m build`` does."""
        for old in self._output.glob("amqprouter-*"):
            old.unlink()
        self._run("source", self._tools / "uv", "build", "--out-dir", self._output, ROOT)
        (sdist,) = self._output.glob("amqprouter-*.tar.gz")
        return sdist

    def interpreter(self, python: str) -> str:
        """The path of the CPython that is called so, from this machine or fetched.

        :raises Failed: there is none.
        """
        uv = self._tools / "uv"
        find = (uv, "python", "find", "--no-project", "--system", f"cpython@{python}")
        try:
            return self._run(f"find-{python}", *find).splitlines()[-1]
        except Failed:
            try:
                self._run(f"fetch-{python}", uv, "python", "install", python)
            except Failed as failed:
                raise Failed(
                    f"no CPython {python} is on PATH, and uv cannot fetch one; put it there, or leave it out with "
                    f"--python\n{failed}"
                ) from None
            return self._run(f"find-{python}", *find).splitlines()[-1]

    def wheel(self, sdist: Path, python: str, interpreter: str) -> Path:
        """Build the compiled wheel for one Python. Raises `Failed` also when it would not run where its tag says."""
        compiler = self._work / "cc"
        compiler.write_text(COMPILER.format(python=sys.executable, target=TARGET))
        compiler.chmod(0o755)
        build = (self._tools / "uv", "build", "--wheel", "--python", interpreter, "--out-dir")
        with TemporaryDirectory(dir=self._work) as raw:
            # Not with the linker's arguments of the interpreter's own build, of which zig's knows few; and without
            # the debug symbols, which are four fifths of the wheel.
            environ = {"CC": str(compiler), "LDSHARED": f"{compiler} -shared", "LDFLAGS": "-Wl,-s"}
            self._run(f"build-{python}", *build, raw, sdist, environ=environ | {"AMQPROUTER_COMPILE": "1"})
            (built,) = Path(raw).glob("*.whl")
            repair = (self._tools / "auditwheel", "repair", "--plat", PLATFORM, "--wheel-dir", self._output)
            self._run(f"audit-{python}", *repair, built)
        version = sdist.name.removeprefix("amqprouter-").removesuffix(".tar.gz")
        (wheel,) = self._output.glob(compiled_name(version, python))
        return wheel

    def try_out(self, sdist: Path, wheel: Path, python: str, interpreter: str) -> tuple[int, int]:
        """Install a wheel into a fresh environment and test it; how many unit and integration tests passed.

        :raises Failed: some did not, or it is not the compiled build that runs.
        """
        home = self._work / f"environment-{python}"
        uv, own = self._tools / "uv", home / "bin/python"
        self._run(f"environment-{python}", uv, "venv", "--clear", "--python", interpreter, home)
        self._run(f"install-{python}", uv, "pip", "install", "--python", own, f"{wheel}[{EXTRAS}]")
        ask = "import amqprouter; print(amqprouter.build_kind(), amqprouter.__path__[0])"
        kind, installed = self._run(f"kind-{python}", own, "-c", ask, cwd=home).split(maxsplit=1)
        if kind != "compiled":
            raise Failed(f"{wheel.name} runs {kind}: what mypyc made is not what Python imports")
        tree = tests_of(sdist, Path(installed.strip()), self._work / f"tests-{python}")
        self._run(f"plugins-{python}", home / "bin/twistd", "--help", cwd=home)  # has twistd write its list of plugins
        trial = (own, "-m", "twisted.trial")
        units = passed(self._run(f"unit-{python}", *trial, "tests.unit", cwd=tree, timeout=1800), skipped=True)
        smoke = passed(self._run(f"smoke-{python}", *trial, SMOKE, cwd=tree, timeout=300), skipped=False)
        return units, smoke

    def chosen(self, python: str) -> str:
        """The file that pip on x86_64 Linux takes for one Python, of all those in the output directory."""
        where = ("--no-deps", "--no-index", "--find-links", self._output, "--only-binary", ":all:")
        what = ("--python-version", python, "--implementation", "cp", "--platform", PLATFORM)
        with TemporaryDirectory(dir=self._work) as folder:
            pip = (sys.executable, "-m", "pip", "download", *where, *what)
            self._run(f"pip-{python}", *pip, "--dest", folder, "amqprouter")
            (path,) = Path(folder).iterdir()
        return path.name


def main(argv: Sequence[str] | None = None) -> int:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    known = versions(setup["metadata"]["classifiers"])
    parser = argparse.ArgumentParser("script/wheels", description="Builds and tries everything that a release uploads.")
    parser.add_argument(
        "--python", nargs="+", default=known, choices=known, metavar="VERSION", help=f"of {', '.join(known)}"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "dist",
        help="a directory for what is built; earlier distributions in it are removed",
    )
    parser.add_argument("--untested", action="store_true", help="build, and try nothing out")
    options = parser.parse_args(argv)
    output = options.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    builder = Builder(Path(sys.executable).parent, WORK, output)
    failed = []
    try:
        sdist = builder.source()
        for python in options.python:
            began = time.monotonic()
            try:
                interpreter = builder.interpreter(python)
                wheel = builder.wheel(sdist, python, interpreter)
                said = "not tried"
                if not options.untested:
                    said = "{} unit tests and {} with a broker passed".format(
                        *builder.try_out(sdist, wheel, python, interpreter)
                    )
                if builder.chosen(python) != wheel.name:
                    raise Failed(f"pip does not take {wheel.name}")
                print(f"{python}: {wheel.name}: {said}, {time.monotonic() - began:.0f} s", flush=True)
            except Failed as failure:
                failed.append(python)
                print(f"{python}: {failure}", file=sys.stderr, flush=True)
        later = f"3.{int(known[-1].partition('.')[2]) + 1}"
        print(f"others, such as {later}: {builder.chosen(later)}")
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    if failed:
        print(f"not to be released: {', '.join(failed)} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Each way to install amqprouter makes ``twistd`` offer it, brings its plugins and page along, and gives what starts.

The distributions are built from a copy of the checkout and installed without the network: each virtual environment
sees the dependencies of the running one through a ``.pth`` file, which also keeps an installed amqprouter of the
running environment out if it is an editable one (a path named in a ``.pth`` file has its own ``.pth`` files ignored).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from zipfile import ZipFile

from twisted.trial.unittest import SynchronousTestCase

from amqprouter import __version__

ROOT = Path(__file__).parents[2]
LEFT_BEHIND = (".*", "_trial_temp*", "__pycache__", "build", "dist", "*.egg-info", "dropin.cache")
PLUGINS = {path.stem for path in (ROOT / "twisted/plugins").glob("amqprouter_*.py")}
STATIC = {path.name for path in (ROOT / "amqprouter/web/static").iterdir()}

_INVENTORY = """
import json, amqprouter, twisted.plugins
from importlib.metadata import entry_points
from importlib.resources import files
from twisted.plugin import getCache
print(json.dumps({
    "home": amqprouter.__file__,
    "plugins": [name for name in getCache(twisted.plugins) if name.startswith("amqprouter")],
    "static": [entry.name for entry in (files("amqprouter") / "web" / "static").iterdir()],
    "scripts": {e.name: e.value for e in entry_points(group="console_scripts") if e.name == "amqprouter"},
}))
"""
_TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
_SAMPLE = ROOT / "etc/amqprouter.ini"


def _run(*command: str | Path, cwd: Path) -> str:
    """A command's output; an error shows all of it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environ = clean | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONWARNINGS": "ignore"}
    finished = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    if finished.returncode:
        raise AssertionError(f"{command} ended with {finished.returncode}:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def source_copy() -> Path:
    """A copy of the checkout: building writes into the tree, and others may be at work in it."""
    copy = Path(mkdtemp(dir=".", prefix="source-")).absolute()
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_BEHIND), dirs_exist_ok=True)
    return copy


@cache
def distributions() -> tuple[Path, Path]:
    """A source distribution, and the wheel built from it."""
    source = source_copy()
    _run(sys.executable, "-m", "build", "--no-isolation", cwd=source)
    (sdist,) = (source / "dist").glob("*.tar.gz")
    (wheel,) = (source / "dist").glob("*.whl")
    return sdist, wheel


class ContentTests(SynchronousTestCase):
    """What is in the distributions, and what is not."""

    def test_wheel(self) -> None:
        names = set(ZipFile(distributions()[1]).namelist())
        modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "amqprouter").rglob("*.py")}
        self.assertEqual(modules - names, set())
        installed = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
        self.assertEqual(installed, {"amqprouter", "twisted"})
        twisted = {name for name in names if name.startswith("twisted/")}
        self.assertEqual(twisted, {f"twisted/plugins/{name}.py" for name in PLUGINS})
        self.assertIn("amqprouter/py.typed", names)

    def test_sdist(self) -> None:
        """It has all that packagers test with, and nothing that was lying about."""
        with tarfile.open(distributions()[0]) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        wanted = {"LICENSE", "setup.cfg", "pyproject.toml", "etc/amqprouter.ini", "etc/systemd/amqprouter.service"}
        wanted |= {"etc/ansible/site.yml", "etc/ansible/roles/amqprouter/files/amqprouter.service"}
        wanted |= {"tests/packaging/test_install.py", "script/test", "docs/deployment.rst", "CHANGELOG.rst"}
        self.assertEqual(wanted - names, set())
        self.assertEqual([name for name in names if "__pycache__" in name or name.endswith("dropin.cache")], [])


class EnvironmentTestCase(SynchronousTestCase):
    """A virtual environment of its own, which sees the dependencies of the running one."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        venv.create(self.folder, with_pip=False, symlinks=True)
        self.python = self.folder / "bin/python"
        paths = sysconfig.get_paths(vars={"base": str(self.folder), "platbase": str(self.folder)})
        dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (Path(paths["purelib"]) / "dependencies.pth").write_text("\n".join(dependencies) + "\n")

    def _install(self, *what: str | Path) -> None:
        pip = (sys.executable, "-m", "pip", "--python", self.python, "install")
        options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
        _run(*pip, *options, *what, cwd=self.folder)


class InstallTests(EnvironmentTestCase):
    """What `twistd` and the package find after an installation."""

    def _check(self, home: Path) -> None:
        found = json.loads(_run(self.python, "-c", _INVENTORY, cwd=self.folder))
        self.assertTrue(Path(found["home"]).is_relative_to(home), found["home"])
        self.assertEqual(set(found["plugins"]), PLUGINS)
        self.assertLessEqual({"amqprouter_dropin", "amqprouter_checkers"}, PLUGINS)
        self.assertEqual(set(found["static"]), STATIC)
        self.assertEqual(found["scripts"], {"amqprouter": "amqprouter.cli.main:main"})
        command, twistd = (self.folder / "bin/amqprouter",), (self.python, "-c", _TWISTD)
        self.assertIn("usage: amqprouter", _run(*command, "--help", cwd=self.folder))
        self.assertEqual(_run(*command, "--version", cwd=self.folder), f"amqprouter {__version__} (interpreted)\n")
        self.assertRegex(_run(*twistd, "--help", cwd=self.folder), r"(?m)^\s+amqprouter\s+Route device messages")
        self.assertIn("is good", _run(*command, "check", "-c", _SAMPLE, cwd=self.folder))
        self.assertEqual(_run(*twistd, "amqprouter", "-c", _SAMPLE, "--check", cwd=self.folder), f"{_SAMPLE}: OK\n")

    def test_wheel(self) -> None:
        self._install(distributions()[1])
        self._check(self.folder)

    def test_sdist(self) -> None:
        self._install(distributions()[0])
        self._check(self.folder)

    def test_editable(self) -> None:
        source = source_copy()
        self._install("--editable", source)
        self._check(source)

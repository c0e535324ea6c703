"""`make install` and the other Pythons, with Pythons that only write down what they are asked."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKE = shutil.which("make") or "make"
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
TORCH = re.findall(r"^torch==(.+)$", CONSTRAINTS, re.MULTILINE)[0]
OWN_INDEX = (
    "--no-deps --force-reinstall --index-url https://download.pytorch.org/whl/{0} torch=={1}"
)
PYTHON = f"""#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; test ! -e "$STATE/bare";;
  "-m pip --version") test ! -e "$STATE/bare";;
  "-m pip install "*)
    echo "$*" >> "$STATE/pip"
    build=${{*#*/whl/}}
    test "$build" = "$*" || echo "${{build#* torch==}}+${{build% torch==*}}" > "$STATE/torch";;
  *importlib.metadata*) cat "$STATE/torch";;
  *) exec {sys.executable} "$@";;
esac
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return the folder of the Python's memory; ``bare`` in it stands for a missing ensurepip."""
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin" / "recorder", PYTHON)
    return tmp_path


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def make(state: Path, *words: str, expected: int = 0, **variables: str) -> str:
    """Run make, its files kept in ``state``, and return what it said."""
    done = subprocess.run(
        [MAKE, "--no-print-directory", f"VENV={state / 'venv'}", *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "STATE": str(state), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


def installs(state: Path) -> list[str]:
    """Return what pip was asked to install since the last call."""
    path = state / "pip"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    options = "-m pip install --quiet --disable-pip-version-check "
    return [line.removeprefix(options) for line in found]


REST = [
    "--constraint constraints.txt --editable .[engine]",
    "--constraint constraints.txt --no-deps open_clip_torch",
]


def test_install_takes_the_torch_that_pip_finds(state):
    """Without TORCH, everything comes from the usual index; the second time nothing is done."""
    recorder = f"PYTHON={state / 'bin' / 'recorder'}"
    make(state, "install", recorder)
    assert installs(state) == REST
    make(state, "install", recorder)
    assert installs(state) == []


def test_another_torch_is_installed_when_it_is_asked_for(state):
    """Only torch comes from its own index, in the tested version, and in the build wanted."""
    recorder = f"PYTHON={state / 'bin' / 'recorder'}"
    make(state, "install", recorder)
    for build in ("cu126", "cpu", "cu126"):
        installs(state)
        make(state, "install", recorder, f"TORCH={build}")
        assert installs(state) == [OWN_INDEX.format(build, TORCH), *REST]
    make(state, "install", recorder, "TORCH=cu126")
    assert installs(state) == []


def test_a_torch_that_is_there_is_not_fetched_again(state):
    """Going back and forth between `make serve TORCH=cpu` and `make serve` costs no download."""
    recorder = f"PYTHON={state / 'bin' / 'recorder'}"
    for build in ("cpu", "", "cpu"):
        installs(state)
        make(state, "install", recorder, f"TORCH={build}")
    assert installs(state) == REST


def test_an_environment_without_pip_is_made_again(state):
    """A Python without ensurepip leaves half an environment: the cure is said, and then works."""
    recorder = f"PYTHON={state / 'bin' / 'recorder'}"
    (state / "bare").touch()
    for _ in range(2):
        assert "apt install python3-venv" in make(state, "install", recorder, expected=2)
    (state / "bare").unlink()
    make(state, "install", recorder)
    assert installs(state) == REST


def test_a_python_that_is_no_promise_is_refused(state):
    """A newer Python is not tried: packages may have nothing for it."""
    program(state / "bin" / "newer", "#!/bin/sh\nexit 1\n")
    said = make(state, "install", f"PYTHON={state / 'bin' / 'newer'}", expected=2)
    assert "Python 3.11, 3.12 or 3.13 is needed" in said


@pytest.mark.parametrize(
    ("version", "chosen"), [("3.10", ""), ("3.11", "python3"), ("3.13", "python3"), ("3.14", "")]
)
def test_python_is_chosen_by_its_version(state, version, chosen):
    """Names are run, for one can be an idle shim; what runs must be 3.11 to 3.13."""
    for name in ("python3.11", "python3.12", "python3.13"):
        program(state / "bin" / name, "#!/bin/sh\nexit 127\n")
    info = f"import sys; sys.version_info = ({version.replace('.', ', ')}, 0, 'final', 0)"
    script = f'#!/bin/sh\nexec {sys.executable} -c "{info}\n$2"\n'
    program(state / "bin" / "python3", script)
    said = make(
        state, "--dry-run", "install", PATH=f"{state / 'bin'}{os.pathsep}{os.environ['PATH']}"
    )
    assert f'test -n "{chosen}"' in said


def test_the_package_promises_the_same_versions():
    """What make does not choose, pip refuses too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    said = "not (3, 11) <= sys.version_info[:2] < (3, 14)"
    assert said in (ROOT / "Makefile").read_text(encoding="utf-8")


ALL, PART = "tests/unit", "tests/unit/config"
"""What a version's tests begin with."""


@pytest.mark.parametrize(
    ("installed", "environment", "main", "tested"),
    [
        (["3.11", "3.12", "3.13"], {}, "", {"3.13": ALL, "3.12": PART}),
        (["3.11", "3.12"], {}, "", {"3.12": ALL}),
        (["3.12", "3.13"], {}, "", {"3.13": ALL}),
        (["3.12", "3.13"], {"PYTHON": "python3.13"}, "", {"3.12": ALL}),
        (["3.11", "3.12", "3.13"], {"PYTHON": "python3.12"}, "", {"3.11": ALL, "3.13": ALL}),
        (["3.11", "3.12"], {"PYTHON": "python3.11"}, "3.12", {"3.11": ALL}),
    ],
)
def test_the_main_version_is_not_tested_twice(state, installed, environment, main, tested):
    """The other versions are those that `make test` does not use: its .venv says which.

    The one between two that are tested gets a part of the tests.
    """
    for name in ("3.11", "3.12", "3.13"):
        text = (
            "#!/bin/sh\n"
            'case "$*" in\n'
            f"  *print*) echo {name};;\n"
            '  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python";;\n'
            "esac\n"
        )
        program(state / "bin" / f"python{name}", text if name in installed else "exit 127\n")
    if main:
        (state / ".venv" / "bin").mkdir(parents=True)
        shutil.copy(state / "bin" / f"python{main}", state / ".venv" / "bin" / "python")
    (state / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts" / "test_versions.sh", state / "scripts")
    path = f"{state / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [script],
        env={"PATH": path, "PYENV_ROOT": str(state), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"^Python (3\.\d+): (tests\S*)", done.stdout, re.MULTILINE)
    assert dict(found) == tested

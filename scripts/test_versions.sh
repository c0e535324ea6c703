#!/usr/bin/env bash
# Runs the tests that need no torch on every other Python from 3.11 to 3.13 that is installed.
# What works on the oldest and on the newest hardly fails between: 3.12 gets a part of them then.
set -euo pipefail
cd "$(dirname "$0")/.."

ran=0
works() { "$1" -c 'import venv, ensurepip' 2>/dev/null; }  # A name on the PATH can be an idle shim.
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# The main version is the one that `make test` uses, or would use.
for python in .venv/bin/python "${PYTHON:-python3.11}" python3.11 python3.12 python3.13 python3; do
  if main=$(version_of "$python"); then break; fi
done

# Nor alerts, dashboards and deployment: those tests look at files, which no Python reads.
whole=tests/unit
for folder in diffusion models demo cli/models alerts dashboards deploy; do
  whole+=" --ignore=tests/unit/$folder"
done
part="tests/unit/config tests/unit/core tests/unit/jobs tests/unit/test_imports.py"
for version in 3.11 3.13 3.12; do
  python=python$version
  works "$python" || for python in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python; do :; done
  works "$python" || { echo "Python $version: not installed, not tested"; continue; }
  [ "$version" = "$main" ] && continue
  venv=.venvs/$version
  stamp=$venv/.installed
  if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ constraints.txt -nt "$stamp" ]; then
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
      --constraint constraints.txt --editable '.[test,tracing]'
    touch "$stamp"
  fi
  tests=$whole
  [ "$version" = 3.12 ] && [ $ran -gt 0 ] && tests=$part
  echo "Python $version: $tests"
  # shellcheck disable=SC2086  # Several words.
  "$venv/bin/python" -m pytest -n 2 --dist loadgroup -q $tests
  ran=$((ran + 1))
done
echo "Tested on $ran other version(s) of Python."

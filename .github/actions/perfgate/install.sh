#!/usr/bin/env bash
# perfgate in a virtual environment of its own: dependencies by hash, perfgate itself from where this action is.
set -euo pipefail

if command -v perfgate >/dev/null; then
    perfgate --version
    exit 0
fi
root=$(cd "$GITHUB_ACTION_PATH/../../.." && pwd)
venv=$RUNNER_TEMP/perfgate
python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
    --requirement "$root/docker/requirements.txt"
# What builds perfgate is in that file too: nothing is fetched that has no hash.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation "$root"
echo "$venv/bin" >>"$GITHUB_PATH"
"$venv/bin/perfgate" --version

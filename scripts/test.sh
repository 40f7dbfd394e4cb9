#!/usr/bin/env bash
# Runs all tests, from a fresh clone too: brings what is missing first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh
exec .tools/bin/just test

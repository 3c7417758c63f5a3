#!/usr/bin/env bash
# Run the whole test suite in the checkout's own virtual environment, which is made if need be.
#
#   bash tools/run_tests.sh [pytest options]      for example: bash tools/run_tests.sh tests/io -x
#
# Tests of real files look for them at ../shared/data or $CLIPGS_TEST_DATA and skip where they are absent.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
make_environment dev
cd "$ROOT"
say "Running the tests"
exec "$PY" -m pytest "$@"

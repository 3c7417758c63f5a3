#!/usr/bin/env bash
# Run the whole test suite in the virtual environment of the checkout, which is made if it is missing.
#
#   bash tools/run_tests.sh [pytest options]      for example: bash tools/run_tests.sh tests/io -x
#
# Two processes share the test files; -n 0 runs all in one. Tests of real files find them at ../shared/data or
# $CLIPGS_TEST_DATA and skip without them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
make_environment dev
cd "$ROOT"
say "Running the tests"
exec "$PY" -m pytest -n 2 --dist loadfile "$@"

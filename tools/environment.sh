# Sourced by the scripts in this folder: makes the virtual environment of the checkout if it is missing.
#
#   PYTHON        interpreter for the environment (python3)
#   CLIPGS_VENV   folder of the environment (.venv in the checkout)
#
# Sets ROOT and PY. Caches stay inside the environment, so that nothing is written outside the checkout, except models that
# the user downloads, since other shells and programs find them in the usual cache of the Hugging Face Hub.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${CLIPGS_VENV:-$ROOT/.venv}"
PY="$VENV/bin/python"
export HF_HOME="${HF_HOME:-${XDG_CACHE_HOME:-${HOME:-$ROOT}/.cache}/huggingface}"
export XDG_CACHE_HOME="$VENV/cache" MPLCONFIGDIR="$VENV/cache/matplotlib" PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Waiting threads sleep: on shared cores, spinning ones stall everything.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

say() { printf '\n==> %s\n' "$*"; }

# make_environment EXTRA: install the package with an extra, unless this setup.cfg is installed already.
make_environment() {
    local stamp="$VENV/installed-$1" python="${PYTHON:-python3}" found
    for found in "$stamp" "$VENV/installed-dev"; do  # dev has the packages of the others
        if [ -f "$found" ] && cmp -s "$found" "$ROOT/setup.cfg"; then return; fi
    done
    if [ ! -x "$PY" ]; then
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
            echo "error: $python is $("$python" --version 2>&1); Python 3.10 or newer is needed (set PYTHON=...)" >&2
            exit 1
        }
        say "Making a virtual environment in $VENV"
        "$python" -m venv "$VENV"
    fi
    say "Installing clipgs_plugin[$1] (about 6 GB with the newest torch; a few minutes)"
    "$PY" -m pip install --quiet --progress-bar off -e "$ROOT[$1]"
    cp "$ROOT/setup.cfg" "$stamp"
}

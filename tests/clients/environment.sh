#!/usr/bin/env bash
# environment.sh FOLDER: installs the clients of tests/clients into FOLDER (name it in
# LFM2GGUF_CLIENTS): two Python environments, and Node packages where there is npm. What cannot be
# installed is left out, and its tests say so.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && cd "$1" || exit 1

for name in python llama-index; do
    requirements=$here/requirements$([ "$name" = python ] || echo "-$name").txt
    "${PYTHON:-python3}" -m venv "$name" || exit 1
    pip="$name/bin/python -m pip install --quiet --disable-pip-version-check"
    $pip -r "$requirements" && continue
    echo "not all of $requirements can be installed together: one by one" >&2
    grep -v '^#' "$requirements" | while read -r package; do $pip "$package"; done
done

mkdir -p node && cp "$here/package.json" node/
command -v npm > /dev/null && (cd node && npm install --silent --no-audit --no-fund)
exit 0

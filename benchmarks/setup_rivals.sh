#!/usr/bin/env bash
# Make one virtual environment for each rival in .rivals/ (git ignores it): sb3, rllib and sbx.
# Usage: benchmarks/setup_rivals.sh [sb3] [rllib] [sbx]      (all three by default; PYTHON=python3.11 chooses the interpreter)
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH="torch==2.13.0" # installed first and alone, so that the rivals' own dependencies cannot choose another build

make_environment() { # folder, requirements...
    local folder=".rivals/$1"
    shift
    [ -x "$folder/bin/python" ] || "${PYTHON:-python3.11}" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet "$TORCH"
    "$folder/bin/python" -m pip install --quiet "$@"
    echo "$folder: $("$folder/bin/python" -m pip freeze | grep -i -E '^(torch|stable.baselines3|sbx-rl|ray|gymnasium|numpy|jax)==' | tr '\n' ' ')"
}

[ $# -gt 0 ] || set -- sb3 rllib sbx
for rival in "$@"; do
    case "$rival" in
    sb3) make_environment sb3 "stable-baselines3==2.9.2" ;;
    rllib) make_environment rllib "ray[rllib]==2.60.0" ;;
    sbx) make_environment sbx "sbx-rl==0.28.0" ;;
    *)
        echo "unknown rival '$rival': choose from sb3, rllib, sbx" >&2
        exit 2
        ;;
    esac
done

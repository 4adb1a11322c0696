#!/usr/bin/env bash
# Make one virtual environment for each rival in .rivals/ (git ignores it): sb3, rllib, sbx and PureJaxRL's own code.
# Usage: benchmarks/setup_rivals.sh [sb3] [rllib] [sbx] [purejaxrl]    (the first three by default; PYTHON=python3.11 chooses the interpreter)
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH="torch==2.13.0" # installed first and alone, so that the rivals' own dependencies cannot choose another build
PUREJAXRL_COMMIT=146b4856d593bcb4114b9c9fdb45798034696551 # it is on no index: its repository, at this commit

make_environment() { # folder, requirements...
    local folder=".rivals/$1"
    shift
    [ -x "$folder/bin/python" ] || "${PYTHON:-python3.11}" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet "$@"
    echo "$folder: $("$folder/bin/python" -m pip freeze | grep -i -E '^(torch|stable.baselines3|sbx-rl|ray|gymnasium|gymnax|numpy|jax|flax)==' | tr '\n' ' ')"
}

with_torch() { # folder, requirements...
    make_environment "$1" "$TORCH"
    make_environment "$@"
}

purejaxrl() {
    make_environment purejaxrl gymnax six distrax flax optax
    [ -d .rivals/purejaxrl/source ] || git clone --quiet https://github.com/luchris429/purejaxrl .rivals/purejaxrl/source
    git -C .rivals/purejaxrl/source checkout --quiet "$PUREJAXRL_COMMIT"
}

[ $# -gt 0 ] || set -- sb3 rllib sbx
for rival in "$@"; do
    case "$rival" in
    sb3) with_torch sb3 "stable-baselines3==2.9.2" ;;
    rllib) with_torch rllib "ray[rllib]==2.60.0" pettingzoo mpe2 ;;
    sbx) with_torch sbx "sbx-rl==0.28.0" ;;
    purejaxrl) purejaxrl ;;
    *)
        echo "unknown rival '$rival': choose from sb3, rllib, sbx, purejaxrl" >&2
        exit 2
        ;;
    esac
done

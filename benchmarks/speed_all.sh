#!/usr/bin/env bash
# Every manifest of speed, one after the other, on an idle machine: about an hour. Each script refuses where it is not idle,
# so that each waits for the load of the one before it to pass.
# Usage: benchmarks/setup_rivals.sh; benchmarks/speed_all.sh      (PYTHON=.venv/bin/python chooses the interpreter)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
results=benchmarks/results

idle() {
    while awk '{ exit $1 > 0.5 ? 0 : 1 }' /proc/loadavg; do sleep 10; done
}

measure() { # script, manifest, arguments...
    local script=$1 manifest=$2
    shift 2
    idle
    echo "=== $script $*"
    "$python" "benchmarks/$script.py" "$@" --json "$results/$manifest.json"
}

measure time_to_400 time-to-400
measure steady_speed steady-speed
measure off_policy_speed off-policy-speed-dqn --only hosted-dqn compiled-dqn --rounds 3
measure off_policy_speed off-policy-speed-sac --only hosted-sac utd --rounds 3
measure random_baseline random-baseline
measure memory_cost memory-cost
measure memory_speed memory-speed
if "$python" -c "import mpe2" 2>/dev/null; then measure multi_agent_speed multi-agent-speed --rllib; fi
measure conv_speed conv-speed --cores 1 2
if "$python" -c "import envpool" 2>/dev/null; then measure atari_speed atari-speed; fi
"$python" benchmarks/table.py

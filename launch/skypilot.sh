#!/usr/bin/env bash
# Trains on spot capacity of any cloud through SkyPilot, whose managed jobs run
# the command again wherever capacity is left; training goes on from there.
#
#   launch/skypilot.sh A100:8 2 --workdir=gs://BUCKET/RUN --config=configs/X.py
#
# The second argument is the number of hosts. --dry-run first prints the task
# only.
set -euo pipefail

dry_run=false
if [[ ${1:-} == --dry-run ]]; then dry_run=true; shift; fi
if (($# < 2)) || [[ ! $2 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/skypilot.sh [--dry-run] ACCELERATORS HOSTS" \
    "[flags of train]" >&2
  exit 2
fi
accelerators=$1 hosts=$2
shift 2
train=$(printf '%q ' python -m dare_jax.train "$@")
root=$(cd "$(dirname "$0")/.." && pwd)
task=$(mktemp --suffix=.yaml)
trap 'rm -f "$task"' EXIT
cat > "$task" <<EOF
name: dare-jax
workdir: $root
num_nodes: $hosts
resources:
  accelerators: $accelerators
  use_spot: true
setup: pip install -e '.[cuda,quickstart,gcs]'
run: |
  coordinator=\$(echo "\$SKYPILOT_NODE_IPS" | head -n 1):8476
  $train \\
    --coordinator="\$coordinator" --num_processes="\$SKYPILOT_NUM_NODES" \\
    --process_id="\$SKYPILOT_NODE_RANK"
EOF
if $dry_run; then cat "$task"; else sky jobs launch --yes "$task"; fi

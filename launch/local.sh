#!/usr/bin/env bash
# Runs one training as N processes on this machine, over loopback: to try out
# what a cluster will do. Everything after N goes to `python -m dare_jax.train`;
# --workdir is needed, as all processes share it.
#
#   launch/local.sh 2 --workdir=runs/two --config=configs/synthetic.py
#
# PORT (a free one by default) and PYTHON (python) can be set. --dry-run first
# prints the commands only. Run it again to resume.
set -euo pipefail

dry_run=false
if [[ ${1:-} == --dry-run ]]; then dry_run=true; shift; fi
if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local.sh [--dry-run] N --workdir=DIR [flags of train]" >&2
  exit 2
fi
count=$1
shift
python=${PYTHON:-python}
free_port='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
port=${PORT:-$("$python" -c "$free_port")}

pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT
for ((id = 0; id < count; id++)); do
  command=("$python" -m dare_jax.train --coordinator="127.0.0.1:$port"
    --num_processes="$count" --process_id="$id" "$@")
  if $dry_run; then
    printf '%q ' "${command[@]}"; echo
    continue
  fi
  "${command[@]}" & pids+=($!)
done

# A signal ends `wait` early: wait for each until it is really gone. The code of
# a process that stopped after saving, 75, outranks those of peers it left.
code=0
for pid in ${pids[@]+"${pids[@]}"}; do
  own=0
  wait "$pid" || own=$?
  while kill -0 "$pid" 2>/dev/null; do own=0; wait "$pid" || own=$?; done
  if ((own != 0 && code != 75)); then code=$own; fi
done
exit "$code"

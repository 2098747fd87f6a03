#!/usr/bin/env bash
# Asks for a TPU slice, spot capacity by default, waits for it, and trains on
# it as launch/tpu_pod.sh does. A slice that was taken away is asked for anew:
# run the same command again, and training goes on from its last checkpoint.
#
#   launch/queued_resource.sh NAME ZONE v5litepod-16 --workdir=gs://BUCKET/RUN
#
# CAPACITY (--spot; empty: on demand) and RUNTIME (v2-alpha-tpuv5-lite) can be
# set. --dry-run first prints the commands only.
set -euo pipefail

options=()
if [[ ${1:-} == --dry-run ]]; then options=(--dry-run); shift; fi
if (($# < 3)); then
  echo "usage: launch/queued_resource.sh [--dry-run] NAME ZONE TYPE" \
    "[flags of train]" >&2
  exit 2
fi
name=$1 zone=$2 kind=$3
shift 3
resources=(gcloud compute tpus queued-resources)

run() {
  printf '%q ' "$@"; echo
  ((${#options[@]})) || "$@"
}
state() {
  "${resources[@]}" describe "$name" --zone="$zone" \
    --format='value(state.state)' 2>/dev/null || echo NONE
}

found=NONE
((${#options[@]})) || found=$(state)
case $found in
  FAILED | SUSPENDED)
    run "${resources[@]}" delete "$name" --zone="$zone" --force --quiet
    found=NONE
    ;;
esac
if [[ $found == NONE ]]; then
  capacity=()
  [[ -z ${CAPACITY---spot} ]] || capacity=("${CAPACITY---spot}")
  run "${resources[@]}" create "$name" --node-id="$name" --zone="$zone" \
    --accelerator-type="$kind" \
    --runtime-version="${RUNTIME:-v2-alpha-tpuv5-lite}" \
    ${capacity[@]+"${capacity[@]}"}
fi
if ! ((${#options[@]})); then
  found=$(state)
  until [[ $found == ACTIVE ]]; do
    if [[ $found == FAILED || $found == SUSPENDED ]]; then
      echo "$name is $found: run the same command to ask for it anew" >&2
      exit 1
    fi
    echo "waiting for $name: $found"
    sleep 30
    found=$(state)
  done
fi
exec "$(dirname "$0")/tpu_pod.sh" ${options[@]+"${options[@]}"} \
  "$name" "$zone" "$@"

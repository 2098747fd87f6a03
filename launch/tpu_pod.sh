#!/usr/bin/env bash
# Trains on a TPU VM pod slice that is already there: copies this checkout to
# all of its workers, installs it, starts the same command on each.
#
#   launch/tpu_pod.sh NAME ZONE --workdir=gs://BUCKET/RUN --config=configs/X.py
#
# The workdir must be one that all workers see. PYTHON (python3), of the workers,
# can be set: it must be 3.11 or later, and Ubuntu 22.04, which many TPU images
# are, has 3.10. --dry-run first prints the commands only. After an interruption
# run it again: training goes on.
set -euo pipefail

dry_run=false
if [[ ${1:-} == --dry-run ]]; then dry_run=true; shift; fi
if (($# < 2)); then
  echo "usage: launch/tpu_pod.sh [--dry-run] NAME ZONE [flags of train]" >&2
  exit 2
fi
name=$1 zone=$2
shift 2

run() {
  printf '%q ' "$@"; echo
  $dry_run || "$@"
}
on_all() {
  run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
    --command="$1"
}

root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(printf '%q' "$(basename "$root")")
python=${PYTHON:-python3}
train=$(printf '%q ' "$python" -m dare_jax.train --distributed "$@")
# To a folder that is there, so that a copy of before is replaced: to one of
# another name, the second copy would go into the first, which would be used.
run gcloud compute tpus tpu-vm scp --recurse --worker=all --zone="$zone" \
  "$root" "$name:."
on_all "cd $folder && $python -m pip install -q -e '.[tpu,quickstart,gcs]'"
on_all "cd $folder && $train"

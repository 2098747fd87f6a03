#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster through xpk, which makes a JobSet.
#
#   launch/gke.sh CLUSTER v5litepod-16 IMAGE --workdir=gs://BUCKET/RUN
#
# IMAGE holds dare_jax with the extras tpu and gcs. WORKLOAD (dare-jax), SLICES
# (1) and RESTARTS (10) can be set. --dry-run first prints the command only.
set -euo pipefail

dry_run=false
if [[ ${1:-} == --dry-run ]]; then dry_run=true; shift; fi
if (($# < 3)); then
  echo "usage: launch/gke.sh [--dry-run] CLUSTER TYPE IMAGE [flags of train]" >&2
  exit 2
fi
cluster=$1 kind=$2 image=$3
shift 3
train=$(printf '%q ' python3 -m dare_jax.train --distributed "$@")
command=(xpk workload create --cluster="$cluster" --tpu-type="$kind"
  --num-slices="${SLICES:-1}" --workload="${WORKLOAD:-dare-jax}"
  --docker-image="$image" --max-restarts="${RESTARTS:-10}"
  --command="$train")
printf '%q ' "${command[@]}"; echo
$dry_run || exec "${command[@]}"

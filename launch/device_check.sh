#!/usr/bin/env bash
# Checks this machine's GPU or TPU in under ten minutes: right answers, and how
# fast. Runs from a checkout; nothing is installed.
#
#   launch/device_check.sh [DIR] [flags of dare_jax.device_check]
#
# DIR (device_check) takes device_check.json, device_check.md and the log.
# PYTHON (python) can be set; it needs jax for the device, flax, optax,
# orbax-checkpoint, chex, numpy, and torch where PyTorch is to be timed, too.
# --dry-run first prints the command only.
set -euo pipefail

dry_run=false
if [[ ${1:-} == --dry-run ]]; then dry_run=true; shift; fi
folder=device_check
if [[ ${1:-} && $1 != -* ]]; then folder=$1; shift; fi
root=$(cd "$(dirname "$0")/.." && pwd)
command=("${PYTHON:-python}" -m dare_jax.device_check
  --output="$folder/device_check.json" --table="$folder/device_check.md" "$@")
printf '%q ' "${command[@]}"; echo
$dry_run && exit

mkdir -p "$folder"
# A checkout holds the configs beside the package.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
"${command[@]}" 2>&1 | tee "$folder/device_check.log"

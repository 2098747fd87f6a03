#!/usr/bin/env bash
#SBATCH --job-name=dare_jax
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
# Trains on GPU hosts under SLURM, one process a GPU:
#
#   sbatch --nodes=4 launch/slurm.sh --workdir=/shared/run --config=configs/X.py
#
# On hosts of four: sbatch --ntasks-per-node=4 --gpus-per-node=4 .. Each process
# must see all GPUs of its host: JAX takes the one of the process's number there.
#
# Five minutes before its time is up, and when it is preempted, the job saves,
# and queues itself again. PYTHON (python) can be set. --dry-run first prints
# the command only.
set -euo pipefail

dry_run=false
if [[ ${1:-} == --dry-run ]]; then dry_run=true; shift; fi
command=(srun --kill-on-bad-exit=0 "${PYTHON:-python}" -m dare_jax.train
  --distributed "$@")
printf '%q ' "${command[@]}"; echo
$dry_run && exit

code=0
"${command[@]}" || code=$?
if ((code == 75)); then
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

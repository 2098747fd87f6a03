#!/usr/bin/env bash
# Trains on GPU hosts of a Kubernetes cluster that has JobSet installed: one
# pod a host. Pods find each other by JAX's own means (package jax[k8s] in the
# image); a failed pod restarts them all, and training goes on.
#
#   launch/kubernetes.sh HOSTS GPUS_EACH IMAGE --workdir=/shared/run
#
# They ask Kubernetes for each other: ACCOUNT (default), the service account,
# must have the right to list pods and to get jobs. NAME (dare-jax),
# CLAIM (a volume claim, mounted at /shared) and RESTARTS (10) can be set, too.
# --dry-run first prints the JobSet only.
set -euo pipefail

apply=(kubectl apply -f -)
if [[ ${1:-} == --dry-run ]]; then apply=(cat); shift; fi
if (($# < 3)) || [[ ! $1$2 =~ ^[0-9]+$ ]]; then
  echo "usage: launch/kubernetes.sh [--dry-run] HOSTS GPUS_EACH IMAGE" \
    "[flags of train]" >&2
  exit 2
fi
hosts=$1 gpus=$2 image=$3
shift 3
arguments=''
for argument in -m dare_jax.train --distributed "$@"; do
  arguments+="${arguments:+, }'${argument//\'/\'\'}'"
done

"${apply[@]}" <<EOF
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: ${NAME:-dare-jax}
spec:
  failurePolicy:
    maxRestarts: ${RESTARTS:-10}
  replicatedJobs:
  - name: train
    replicas: 1
    template:
      spec:
        parallelism: $hosts
        completions: $hosts
        completionMode: Indexed
        backoffLimit: 0
        template:
          spec:
            restartPolicy: Never
            serviceAccountName: ${ACCOUNT:-default}
            terminationGracePeriodSeconds: 300
            containers:
            - name: train
              image: '$image'
              command: [python3]
              args: [$arguments]
              resources:
                limits:
                  nvidia.com/gpu: $gpus
              volumeMounts:
              - name: shared
                mountPath: /shared
            volumes:
            - name: shared
              persistentVolumeClaim:
                claimName: ${CLAIM:-shared}
EOF

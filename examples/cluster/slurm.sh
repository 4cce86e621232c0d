#!/bin/bash
# Trains one run on 4 nodes with 8 GPUs each: sbatch --export=ALL,STORE=...,ATLAS=...,RUN=... slurm.sh
# STORE, ATLAS and RUN are on storage that all nodes see under the same path, and musegnn is installed there.
#SBATCH --job-name=musegnn
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# One secret for all nodes; without it nobody may use the cluster.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/.ray/musegnn-$SLURM_JOB_ID.token" RAY_USAGE_STATS_ENABLED=0
if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
  (umask 077 && mkdir -p "$HOME/.ray" && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")
fi
# Training notices a silent host by itself within 7 s. Ray gives a host up after 20 failed checks, so that a network that
# is out for some seconds costs nothing, and a build's tasks on a silent host fail after 15 s.
export RAY_health_check_initial_delay_ms=1000 RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=1000 RAY_health_check_failure_threshold=20
export RAY_grpc_client_keepalive_time_ms=5000 RAY_grpc_client_keepalive_timeout_ms=10000
export RAY_worker_niceness=0

# A job that is put back into the queue goes on from its newest checkpoint: --resume.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_NNODES" -- \
  musegnn train "$STORE" --atlas "$ATLAS" --out "$RUN" --actors 32 --device cuda --min-actors 8 --address auto --resume

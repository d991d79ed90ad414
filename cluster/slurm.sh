#!/usr/bin/env bash
# A search as one SLURM job: Ray starts on all its nodes, the search runs on the first, Ray stops.
#
#   sbatch cluster/slurm.sh --config run.yaml --name mine       (what follows goes to raynas.launch;
#   with --trust where run.yaml, or the folder of a run that is gone on with, names code of your own)
#
# A job that SLURM puts back into the queue (a node failed, another job went first) goes on with its run: `--resume auto`
# starts the run of this name, or goes on where it is there. Without --name it is named by the number of the job.
#
# The home folder, or whatever --storage-path names, must be mounted on all nodes; `python` and `ray` must be those of
# the environment into which RayNAS is installed.
#SBATCH --job-name=raynas
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# A token for this job alone.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/slurm-$SLURM_JOB_ID
mkdir -p ~/.ray
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Two jobs may share a machine's ports where the cluster allows it.
port=$((20000 + SLURM_JOB_ID % 10000))
RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-300} \
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
    ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" --disable-usage-stats \
    -- python -m raynas.launch --address auto --resume auto --name "slurm-$SLURM_JOB_ID" "$@"

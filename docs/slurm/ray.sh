#!/bin/bash
# A preparation, aligning or tokenizing on the nodes of a job, by Ray:
#
#     sbatch --nodes 8 docs/slurm/ray.sh SCRIPT ARGUMENTS ...
#
# The cluster is the job's alone: its nodes share a token that is drawn here.
#SBATCH --job-name=spiritlm-ray
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -eu

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
others=$((SLURM_NNODES - 1))
export RAY_ADDRESS="$head:6379"
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN

srun --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --port=6379 --block &
until ray health-check --address "$RAY_ADDRESS"; do sleep 2; done
if [ "$others" -gt 0 ]; then
    srun --nodes="$others" --ntasks="$others" --exclude="$head" \
        ray start --address "$RAY_ADDRESS" --block &
fi
python "$@" --engine ray

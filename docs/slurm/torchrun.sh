#!/bin/bash
# A script of a recipe on all GPUs of a job, by torchrun:
#
#     sbatch --nodes 8 docs/slurm/torchrun.sh SCRIPT ARGUMENTS ...
#
# Before its time is over the job asks to be queued again, as it is when it is
# preempted; the script then goes on from what is on the disk.
#SBATCH --job-name=spiritlm
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -eu

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
gpus=${SLURM_GPUS_ON_NODE:-1}
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / gpus))

trap 'scontrol requeue "$SLURM_JOB_ID"' USR1
srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_NNODES" \
    --nproc_per_node "$gpus" --rdzv_backend c10d \
    --rdzv_endpoint "$head:29500" --rdzv_id "$SLURM_JOB_ID" "$@" &
wait $!

#!/bin/bash
# Sixteen parts of a list as a Slurm array: sbatch docs/cluster/slurm.sh /shared/videos.csv /shared/results
#SBATCH --job-name=track-many
#SBATCH --array=1-16
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
# A minute before its time is over, a part is told to end, and keeps what is finished. The same command goes on.
set -euo pipefail
exec srun .venv/bin/python track_many.py "$1" --output "$2" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"

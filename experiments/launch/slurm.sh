#!/bin/bash
# Trains on the nodes of a SLURM job, one process for each GPU.
#
#   sbatch --nodes=2 experiments/launch/slurm.sh configs/cifar10_attention92.py /shared/run
#
# Assumes: eight GPUs a node; this repository is the current folder, with its .venv, and like the
# workdir and the data on a file system that all nodes see. JAX finds the processes through
# SLURM's environment. Ten minutes before the time is over SLURM sends SIGTERM: the run is saved
# (exit status 75) and queued again.
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --signal=TERM@600
#SBATCH --requeue
set -uo pipefail
config=$1 workdir=$2
shift 2
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-8}" .venv/bin/python main.py --distributed \
  --config="$config" --workdir="$workdir" \
  --config.preemption_grace_seconds=540 "$@"
status=$?
if [ $status -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $status

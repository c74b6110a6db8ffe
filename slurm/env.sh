# Sourced on every node by the scripts of this folder and by the jobs that launcher=slurm writes: the one place for what
# differs between clusters.
# shellcheck shell=bash

if [ -f "${MOVIEGEN_ROOT:?set by the script that sources this}/.venv/bin/activate" ]; then
  source "$MOVIEGEN_ROOT/.venv/bin/activate"
fi

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-8}"
export WANDB_MODE="${WANDB_MODE:-offline}" # compute nodes rarely reach a server
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1   # a dead rank ends the job instead of hanging it
export PYTHONUNBUFFERED=1

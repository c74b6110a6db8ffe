# Sourced by the scripts of this folder on every node: the one place for what differs between clusters.
# shellcheck shell=bash

source "${MOVIEGEN_ROOT:?set by the sbatch script}/.venv/bin/activate"

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-8}"
export WANDB_MODE="${WANDB_MODE:-offline}" # compute nodes rarely reach a server
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1   # a dead rank ends the job instead of hanging it
export PYTHONUNBUFFERED=1

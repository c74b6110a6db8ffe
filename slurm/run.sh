# Sourced by the scripts of this folder that may be cut off: run a command through srun, and put the job back into the
# queue where a warning of SLURM, of the time limit or of preemption, has stopped it.
# shellcheck shell=bash

run_and_requeue() {
  local code=0 warned=
  trap 'warned=1; scancel --signal=TERM "$SLURM_JOB_ID"' USR1 TERM # to the job's steps, not to this script
  srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "$@" &
  local running=$!
  wait "$running" || code=$?
  if [ -n "$warned" ]; then # the trap ended the first wait: let the steps save, then queue again
    code=0
    wait "$running" || code=$?
    [ "$code" = 0 ] || scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$code"
}

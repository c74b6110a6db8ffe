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
  fi
  # where a cluster preempts by SIGTERM alone, the steps get it and this script does not: their exit code tells
  case "$warned:$code" in
    *:0) ;;
    1:* | :138 | :140 | :143) may_go_on && scontrol requeue "$SLURM_JOB_ID" ;;
  esac
  exit "$code"
}

may_go_on() { # a job that was cancelled, or is over, must not rise again
  [[ "$(scontrol --oneliner show job "$SLURM_JOB_ID")" =~ JobState=RUNNING ]]
}

"""`launcher=slurm`: a command as a SLURM job instead of a process of this machine. See slurm/README.md."""

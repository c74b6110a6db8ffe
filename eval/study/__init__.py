"""Human preference: the study file, votes, and their statistics; files in, figures out, no training stack."""

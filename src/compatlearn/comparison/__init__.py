"""Which method, and how sure: methods × seeds, sweeps, situations."""

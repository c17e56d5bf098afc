"""Is it compatible? Figures with their intervals, and the verdict."""

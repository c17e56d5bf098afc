"""The new model is trained for compatibility: the loop, its runs, the table of methods."""

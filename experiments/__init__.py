"""A folder for each paper: what to run, and what the runs say of its claims."""

"""What a run leaves behind: the run database, model files, the run directory, atomic writes."""

"""The engine `simulated`: roles as tasks on a virtual clock."""

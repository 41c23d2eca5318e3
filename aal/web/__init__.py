"""The page where people label, and the one from which a run is watched."""

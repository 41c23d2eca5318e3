"""What the labels of a run are given out from, and in which forms."""

"""The files at the top of the repository, under names that collide with nobody's once installed (links to them)."""

"""The files at the top of the repository, under names that collide with no other package's once installed (links to them)."""

"""How several answers become one label, and how far people agree."""

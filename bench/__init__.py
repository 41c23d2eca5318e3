"""What the program costs and what it survives, measured."""

"""Inputs that nobody would write, damaged files and poor environments, at random."""

"""Strategies: how to choose the unlabelled examples whose labels are worth most. Each file registers its own."""

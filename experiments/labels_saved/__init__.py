"""How many labels does a strategy save? Measured on CIFAR-10: `python reproduce.py strategies`."""

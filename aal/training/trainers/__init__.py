"""Trainers besides `fit`, which stands in server_train.py: each file registers its own."""

"""Federated active learning as in "Knowledge-Aware Federated Active Learning with Non-IID Data" (ICCV 2023)."""

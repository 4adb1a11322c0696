"""Environments: compiled twins of Gymnasium's, the adapters to Gymnasium itself, checks and the random baseline."""

"""What is checked of an environment before anyone trains on it."""

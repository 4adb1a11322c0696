"""What runs: collect, learn, train, evaluate. Loops know environments and agents, and no particular algorithm."""

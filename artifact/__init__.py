"""What a finished model is on disk: the contract of all that make, measure or run one (no torch)."""

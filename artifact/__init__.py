"""What a finished model is on disk: the contract between making, measuring and running one (no torch, no transformers)."""

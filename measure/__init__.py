"""Time, weigh and score anything that is a `Runtime`, without knowing its engine (no torch)."""

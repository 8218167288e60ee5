"""From measurements to a verdict and to text: pure functions, no engine, no torch."""

"""Causal language models: one graph for the prompt and for each token after it, with the cache bound in place."""

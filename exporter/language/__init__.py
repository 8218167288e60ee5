"""Models that write text: one graph for what is given and for each token after it, with the cache bound in place."""

"""Metrics that are sums over samples, so that they add up over batches and processes."""

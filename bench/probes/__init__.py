"""What is measured without training: fit, coverage, drift, latency."""

"""What a model costs: parameters, stored bytes, latency, memory."""

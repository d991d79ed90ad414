"""What an architecture costs: MACs, parameters, memory, latency."""

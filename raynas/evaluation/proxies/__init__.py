"""Zero-cost proxies: scores of untrained networks."""

"""How good an architecture is: scorer, BatchNorm calibration, zero-cost proxies, angle, tables."""

"""Ray clusters: connection, placement, nodes, monitoring metrics."""

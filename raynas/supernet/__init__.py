"""The Ray actors that host shared weights, and their client."""

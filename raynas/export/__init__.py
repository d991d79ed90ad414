"""Export of a network as files that need no RayNAS."""

"""Training of supernets and of single networks: loop, path sampling, phases, checkpoints."""

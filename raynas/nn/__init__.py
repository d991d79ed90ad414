"""What a model with choices is made of, and how subnets are derived from it."""

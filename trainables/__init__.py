"""Ways of scoring architectures, one a file, each a ``ray.tune.Trainable``."""

"""Search spaces, one family a file: ordinary PyTorch models that contain Choices."""

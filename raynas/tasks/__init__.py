"""What is learned from the data: batches, loss, metric."""

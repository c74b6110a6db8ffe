"""Reading shards for training: a tar index, the order of samples, mixtures, and the Lightning data module."""

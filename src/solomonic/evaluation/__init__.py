"""What a trained language model is worth: bits per byte by length, retrieval at any depth, recall, benchmarks."""

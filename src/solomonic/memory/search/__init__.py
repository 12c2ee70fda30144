"""Search over the keys of one layer: exact, by inverted lists, and its definition."""

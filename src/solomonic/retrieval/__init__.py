"""A model with a long-term store: reading documents into it, finding tokens in it, and mixing several readers."""

"""Training of language models on text, on one process or many, that can be killed and resumed."""

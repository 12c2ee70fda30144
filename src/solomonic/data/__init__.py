"""Documents from files and folders, and tokenizers."""

"""What every package may import: files, JSON, limits of the machine, progress and errors for unknown names."""

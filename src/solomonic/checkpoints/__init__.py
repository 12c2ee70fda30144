"""Models and training runs on disk: our folders, the formats of other projects, checkpoints of a run."""

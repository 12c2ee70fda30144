"""The theory that the architecture comes from: Solomonoff inference and stochastic realization."""

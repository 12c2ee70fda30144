"""The same process in reversed time (Lindquist and Picci 1979).

With Sigma = A Sigma A^T + Q and G = E x_{t+1} y_t^T, the state xbar_t = Sigma^-1 x_{t+1} runs backwards:

    xbar_{t-1} = A^T xbar_t + wbar_t,    y_t = G^T xbar_t + vbar_t,
    cov(wbar, vbar) = [[Sigma^-1 - A^T Sigma^-1 A, C^T - A^T Sigma^-1 G], [., L_0 - G^T Sigma^-1 G]].

Read backwards, its covariances are those of the forward model. It is not the forward model with time reversed: that one
is not causal in its noise.
"""

import numpy as np

from .linear import Markov, symmetric


def backward(model: Markov) -> Markov:
    """The backward model, its time running down: `sample` gives the last row first. ValueError if unstable or degenerate."""
    A, C, Sigma, G = model.A, model.C, model.state_covariance, model.next_output
    values = np.linalg.eigvalsh(Sigma)
    if len(values) and values[0] <= 1e-13 * values[-1]:
        raise ValueError("expected noise that reaches every state, got a state without any: lower the order")
    inverse = symmetric(np.linalg.inv(Sigma))
    L0 = symmetric(C @ Sigma @ C.T + model.R)
    Q = symmetric(inverse - A.T @ inverse @ A)
    S = C.T - A.T @ inverse @ G
    R = symmetric(L0 - G.T @ inverse @ G)
    return Markov(A.T, G.T, Q, S, R)


__all__ = ["backward"]

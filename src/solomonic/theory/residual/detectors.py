"""Two published detectors by their definitions, to stand beside the residual stack.

Both take a series (rows,) and give a score for each row in [0, 1] that depends on that row and those before it; the
relative entropy detector knows the range of the whole series, as in the benchmark.
"""

import numpy as np
from scipy.special import erfc, rel_entr
from scipy.stats import chi2


def windowed_gaussian(x: np.ndarray, window: int = 1000) -> np.ndarray:
    """1 - Q(|z|), z the distance of a row from the mean of the `window` rows before it, in their standard deviations.

    The Numenta Anomaly Benchmark's baseline, with the window that it was tuned to.
    """
    x = np.asarray(x, float)
    scores = np.zeros(len(x))
    for t in range(1, len(x)):
        past = x[max(0, t - window) : t]
        z = abs(x[t] - past.mean()) / (past.std() or 1e-6)
        scores[t] = 1 - 0.5 * erfc(z / 2**0.5)
    return scores


def relative_entropy(
    x: np.ndarray, window: int = 52, bins: int = 5, significance: float = 0.01, often: int = 1
) -> np.ndarray:
    """1 where the histogram of the last `window` rows agrees with none before, else 0 (Wang et al. 2011, figure 1).

    Two agree where 2 W KL(now, before) is below the chi-squared quantile. A histogram that agrees with none is kept as a
    hypothesis; one that at most `often` windows agreed with still counts as an anomaly. The benchmark tuned the settings.
    """
    x = np.asarray(x, float)
    scores = np.zeros(len(x))
    low, step = x.min(), np.ptp(x) / bins
    if step == 0:
        return scores
    at = np.clip(np.ceil((x - low) / step).astype(int), 0, bins)
    at = np.minimum(at, bins - 1)  # the last bin of a histogram over [0, bins] has both its edges
    limit = chi2.isf(significance, bins - 1)
    hypotheses = np.empty((0, bins))
    agreed: list[int] = []
    for t in range(window - 1, len(x)):
        now = np.bincount(at[t - window + 1 : t + 1], minlength=bins) / window
        statistic = 2 * window * rel_entr(now, hypotheses).sum(1)
        nearest = int(statistic.argmin()) if len(statistic) else -1
        if nearest >= 0 and statistic[nearest] < limit:
            agreed[nearest] += 1
            scores[t] = float(agreed[nearest] <= often)
        else:
            scores[t] = float(nearest >= 0)  # the first window is a hypothesis, and no anomaly
            hypotheses, agreed = np.vstack([hypotheses, now]), [*agreed, 1]
    return scores

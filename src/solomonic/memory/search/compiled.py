"""The search of `InvertedListsIndex` as numba compiles it: the same answers, bit for bit.

For one query the overhead of torch's operations is larger than their work. Here each key of the lists is read once and
multiplied (whole numbers in float32, exact up to 1,000 dims), and kept if it is among the top candidates so far.

Shapes: G heads, Q queries times heads, heads innermost, D dims, n tokens, C lists a head, P of them probed, c candidates.
"""

import numpy as np

from ...ops.jit import compiled


@compiled(fastmath={"reassoc", "nsz"})
def _product(query, code, i):
    total = np.float32(0)
    for d in range(len(query)):
        total += query[d] * np.float32(code[i, d])
    return total


@compiled()
def _least(x):
    at = 0
    for i in range(1, len(x)):
        if x[i] < x[at]:
            at = i
    return at


@compiled()
def _rounded(query, scale, code):
    """Writes the whole numbers `code` (D,) of a query, and returns the unit of their products."""
    most = np.float32(1e-30)
    for d in range(len(query)):
        code[d] = query[d] * scale[d]
        most = max(most, abs(code[d]))
    unit = most / np.float32(127)
    for d in range(len(query)):
        code[d] = np.rint(code[d] / unit)
    return unit


@compiled()
def _probe(code, centroids, probed):
    """Writes the lists `probed` (P,) of a head whose centroids have the largest products; of equal ones the first."""
    if 8 * len(probed) > len(centroids):
        every = np.array(
            [np.int64(_product(code, centroids, at)) * len(centroids) - at for at in range(len(centroids))]
        )
        probed[:] = np.argsort(every)[len(centroids) - len(probed) :]
        return
    agreement = np.full(len(probed), np.iinfo(np.int64).min)
    least = 0
    for at in range(len(centroids)):
        product = np.int64(_product(code, centroids, at)) * len(centroids) - at
        if product > agreement[least]:
            agreement[least], probed[least] = product, at
            least = _least(agreement)


@compiled()
def _scan(code, unit, begin, end, lists, added, clock_rate, rows, best):
    """Writes the logits of the places [begin, end) that are among the largest into `best` (c,), and their rows."""
    _, codes, row, bias, document, clock = lists
    biased, worst = len(added) > 0, _least(best)
    least = best[worst]
    for place in range(begin, end):
        logit = _product(code, codes, place) * unit + bias[place]
        if biased:
            logit = logit + added[document[place]] + clock_rate * clock[place]
        if logit > least:
            best[worst], rows[worst] = logit, row[place]
            worst = _least(best)
            least = best[worst]


@compiled()
def _scan_tail(code, unit, scanned, head, tail, keys, documents, clock_rate, admit, rows, best):
    """As `_scan`, of the rows of the tail whose lists are `scanned` (C,)."""
    first, list_of, codes = tail
    _, _, admission, token_id, clock = keys
    _, known, added, _ = documents
    for row in range(first, list_of.shape[1]):
        if scanned[list_of[head, row]]:
            logit = _product(code, codes[head], row - first) * unit
            if admit:
                logit = logit + admission[row]
            if len(known):
                logit = logit + added[np.searchsorted(known, token_id[row] >> 32)] + clock_rate * clock[row]
            worst = _least(best)
            if logit > best[worst]:
                best[worst], rows[worst] = logit, row


@compiled()
def _top_k(query, head, rows, keys, documents, rate, admit, token_ids, logits):
    """Writes the k of `rows` with the largest logits by `exact.logits`, which adds halves to halves; of equal ones the older first."""
    key, value_of, admission, token_id, clock = keys
    _, known, _, clock_start = documents
    x = np.empty(len(query), dtype=np.float64)
    for row in rows:
        if row < 0:
            continue
        for d in range(len(query)):
            bits = key[head, row, d]
            x[d] = np.float64(query[d]) * (np.float64(value_of[np.uint16(bits)]) if len(value_of) else np.float64(bits))
        d = len(query)
        while d > 1:
            half = (d + 1) // 2
            for i in range(d - half):
                x[i] += x[half + i]
            d = half
        total = x[0]
        if admit:
            total += np.float64(admission[row])
        if rate != 0:
            total += rate * (clock_start[np.searchsorted(known, token_id[row] >> 32)] + np.float64(clock[row]))
        new, logit = token_id[row], np.float32(total)
        for i in range(len(token_ids)):
            if logit > logits[i] or (logit == logits[i] and (token_ids[i] < 0 or new < token_ids[i])):
                new, token_ids[i] = token_ids[i], new
                logit, logits[i] = logits[i], logit


@compiled()
def nearest(query, centres, lists, tail, keys, documents, rate, admit, k, count, probes):
    """Token ids and logits (Q, k) of the top k of each query by the definition, among `count` by rounded products.

    query      (Q, D) float32
    centres    the unit of the codes of each head's keys (G, D); codes of the lists' centroids (G, C, D)
    lists      the places of each, from and to, (G C + 1,); of each place its code, row, bias, document and clock
    tail       the first row that is in no list; of all rows their list (G, n); codes of the tail (G, n - first, D)
    keys       (G, n or more, D); the values of their bits, where they are bits; admission, token ids, clocks (n or more,)
    documents  the bias of each document of the lists; ids of documents, rising; the bias of each; the store's clock
               where each begins, float64. Empty where nothing is added
    """
    (scale, centroids), edges, clock_rate = centres, lists[0], np.float32(rate)
    heads, per_head = centroids.shape[:2]
    codes, rows = np.empty_like(query), np.full((len(query), count), -1, dtype=np.int64)
    unit, best = np.empty(len(query), dtype=np.float32), np.full(rows.shape, -np.inf, dtype=np.float32)
    probed = np.zeros((len(query), probes), dtype=np.int64)
    for q in range(len(query)):
        unit[q] = _rounded(query[q], scale[q % heads], codes[q])
        _probe(codes[q], centroids[q % heads], probed[q])
        probed[q] += q % heads * per_head
    each = probed.ravel()
    for pair in np.argsort(each):  # a list that several queries ask for is in the cache from the second on
        q, at = pair // probes, each[pair]
        _scan(codes[q], unit[q], edges[at], edges[at + 1], lists, documents[0], clock_rate, rows[q], best[q])
    token_ids = np.full((len(query), k), -1, dtype=np.int64)
    logits = np.full((len(query), k), -np.inf, dtype=np.float32)
    for q in range(len(query)):
        head = q % heads
        if tail[0] < tail[1].shape[1]:
            scanned = np.zeros(per_head, dtype=np.bool_)
            scanned[probed[q] - head * per_head] = True
            _scan_tail(codes[q], unit[q], scanned, head, tail, keys, documents, clock_rate, admit, rows[q], best[q])
        _top_k(query[q], head, rows[q], keys, documents, rate, admit, token_ids[q], logits[q])
    return token_ids, logits

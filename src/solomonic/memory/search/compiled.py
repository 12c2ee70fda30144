"""The search of `lists.ApproximateIndex` as numba compiles it: the same answers, bit for bit.

For one query the operations of torch cost more than what they do. Here each key of the lists is read once, multiplied
(whole numbers in float32, exact up to 1,000 dims) and forgotten, if it is not among the best so far.

Letters: G heads, Q queries and heads, heads in turn, D dims, n tokens, C lists a head, P of them looked at, c candidates.
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
    """Writes the whole numbers `code` (D,) of a query, and gives what a product of theirs is worth."""
    most = np.float32(1e-30)
    for d in range(len(query)):
        code[d] = query[d] * scale[d]
        most = max(most, abs(code[d]))
    unit = most / np.float32(127)
    for d in range(len(query)):
        code[d] = np.rint(code[d] / unit)
    return unit


@compiled()
def _ask(code, middle, asked):
    """Writes the lists `asked` (P,) of a head whose centroids have the largest products; of equal ones the first."""
    if 8 * len(asked) > len(middle):
        every = np.array([np.int64(_product(code, middle, at)) * len(middle) - at for at in range(len(middle))])
        asked[:] = np.argsort(every)[len(middle) - len(asked) :]
        return
    agreement = np.full(len(asked), np.iinfo(np.int64).min)
    least = 0
    for at in range(len(middle)):
        mine = np.int64(_product(code, middle, at)) * len(middle) - at
        if mine > agreement[least]:
            agreement[least], asked[least] = mine, at
            least = _least(agreement)


@compiled()
def _look(code, unit, begin, end, lists, added, falls, rows, best):
    """Puts among the `best` logits (c,), and into their `rows`, those of the places [begin, end) that belong there."""
    _, codes, row, bias, document, clock = lists
    fade, worst = len(added) > 0, _least(best)
    least = best[worst]
    for place in range(begin, end):
        logit = _product(code, codes, place) * unit + bias[place]
        if fade:
            logit = logit + added[document[place]] + falls * clock[place]
        if logit > least:
            best[worst], rows[worst] = logit, row[place]
            worst = _least(best)
            least = best[worst]


@compiled()
def _look_late(code, unit, looked, head, tail, keys, fades, falls, admit, rows, best):
    """The same of those rows of the tail whose lists are `looked` (C,) at."""
    first, which, codes = tail
    _, _, admission, age, clock = keys
    _, known, added, _ = fades
    for row in range(first, which.shape[1]):
        if looked[which[head, row]]:
            logit = _product(code, codes[head], row - first) * unit
            if admit:
                logit = logit + admission[row]
            if len(known):
                logit = logit + added[np.searchsorted(known, age[row] >> 32)] + falls * clock[row]
            worst = _least(best)
            if logit > best[worst]:
                best[worst], rows[worst] = logit, row


@compiled()
def _settle(query, head, rows, keys, fades, rate, admit, ages, logits):
    """Writes the k best of `rows` by `index.logits`, which adds halves to halves; of equal ones the older first."""
    key, meaning, admission, age, clock = keys
    _, known, _, began = fades
    x = np.empty(len(query), dtype=np.float64)
    for row in rows:
        if row < 0:
            continue
        for d in range(len(query)):
            bits = key[head, row, d]
            x[d] = np.float64(query[d]) * (np.float64(meaning[np.uint16(bits)]) if len(meaning) else np.float64(bits))
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
            total += rate * (began[np.searchsorted(known, age[row] >> 32)] + np.float64(clock[row]))
        mine, logit = age[row], np.float32(total)
        for i in range(len(ages)):
            if logit > logits[i] or (logit == logits[i] and (ages[i] < 0 or mine < ages[i])):
                mine, ages[i] = ages[i], mine
                logit, logits[i] = logits[i], logit


@compiled()
def nearest(query, centres, lists, tail, keys, fades, rate, admit, k, count, probes):
    """Ages and logits (Q, k) of the best of each query by the definition, among the `count` best by rounded products.

    query    (Q, D) float32
    centres  the unit of the codes of each head's keys (G, D); codes of the lists' centroids (G, C, D)
    lists    the places of each, from and to, (G C + 1,); of each place its code, row, bias, document and clock
    tail     the first row that is in no list; of all rows their list (G, n); codes of the tail (G, n - first, D)
    keys     (G, n or more, D); the meaning of their bits, where they are bits; admission, age and clock (n or more,)
    fades    added to each document of the lists; ids of documents, rising; added to each; where each begins, float64.
             Empty where nothing is added
    """
    (scale, middle), edges, falls = centres, lists[0], np.float32(rate)
    heads, per_head = middle.shape[:2]
    codes, rows = np.empty_like(query), np.full((len(query), count), -1, dtype=np.int64)
    unit, best = np.empty(len(query), dtype=np.float32), np.full(rows.shape, -np.inf, dtype=np.float32)
    asked = np.zeros((len(query), probes), dtype=np.int64)
    for q in range(len(query)):
        unit[q] = _rounded(query[q], scale[q % heads], codes[q])
        _ask(codes[q], middle[q % heads], asked[q])
        asked[q] += q % heads * per_head
    each = asked.ravel()
    for pair in np.argsort(each):  # a list that several queries ask for is in the cache from the second on
        q, at = pair // probes, each[pair]
        _look(codes[q], unit[q], edges[at], edges[at + 1], lists, fades[0], falls, rows[q], best[q])
    ages = np.full((len(query), k), -1, dtype=np.int64)
    logits = np.full((len(query), k), -np.inf, dtype=np.float32)
    for q in range(len(query)):
        head = q % heads
        if tail[0] < tail[1].shape[1]:
            looked = np.zeros(per_head, dtype=np.bool_)
            looked[asked[q] - head * per_head] = True
            _look_late(codes[q], unit[q], looked, head, tail, keys, fades, falls, admit, rows[q], best[q])
        _settle(query[q], head, rows[q], keys, fades, rate, admit, ages[q], logits[q])
    return ages, logits

"""Solomonoff inference on bits, with a machine so small that it can be exact (Solomonoff 1964; Levin 1973).

M(x) is the chance that a monotone universal machine prints x first when every instruction it asks for is drawn at
random. `reference` is the machine, one program at a time; `compiled` the same search as numba compiles it; `outcomes`
what a search knows, as bounds; `inference` the search under a budget, and what to say where it finds nothing;
`context_tree` the exact mixture over context trees beside it. `compiled` and `inference` need numba (the extra
`theory`), the others do not.
"""

"""Probes of a trained model: what its memories hold, how long, and what is lost without them.

`watch` sees the model at work and takes memories away; `gramian` says how many directions of a fading memory are
written and read, and for how long; `system` fits a layer by a linear system; `study` does all of it on one text.
None of them changes the model.
"""

"""The independent forward pass: what a checkpoint computes, in float32, layer by layer.

Nothing here is shared with the converter (:mod:`lfm2gguf.lfm2`): a mistake made once must not
cancel itself.
"""

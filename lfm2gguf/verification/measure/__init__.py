"""From logits, vectors and weights to figures."""

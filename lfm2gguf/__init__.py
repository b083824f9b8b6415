"""Convert, verify and run LFM2 models as GGUF."""

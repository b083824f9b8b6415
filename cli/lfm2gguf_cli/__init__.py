"""The command line of lfm2gguf: one file for each command, and no logic in them."""

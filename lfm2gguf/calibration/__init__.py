"""Better weights in the same types: rounding that knows what each layer sees."""

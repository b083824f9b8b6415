"""From requests to tokens: the scheduler, its memory, and tokens to text."""

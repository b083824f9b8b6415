"""What other programs need to run a file: their commands, settings and templates."""

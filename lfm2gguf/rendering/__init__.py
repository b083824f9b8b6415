"""How figures are shown: SVG, tables."""

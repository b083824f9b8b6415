"""From figures to a verdict: limits, gates, a baseline."""

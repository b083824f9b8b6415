"""From text to an answer: pieces, streams, grammars and rounds of tools."""

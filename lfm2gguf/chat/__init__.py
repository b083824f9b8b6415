"""How a conversation is written: templates, tools, calls, and the guard between them."""

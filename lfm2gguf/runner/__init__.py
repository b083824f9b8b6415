"""Running a model: chat, streaming, tools, many requests at once, embeddings."""

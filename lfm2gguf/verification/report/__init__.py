"""A verification as data, words, Markdown, JUnit and a picture."""

"""What is compared, and on which text: files, references, texts, conversations."""

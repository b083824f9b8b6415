"""A benchmark as data, tables, a comparison and a page."""

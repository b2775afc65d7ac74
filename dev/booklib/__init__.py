"""The book: what is generated of it, and how it becomes a site."""

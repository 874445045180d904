"""Scores of embeddings; each module has one kind of question."""

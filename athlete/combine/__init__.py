"""Combinators: an agent in, an agent out."""

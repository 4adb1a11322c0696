"""Compiled environments."""

"""Recorded decisions: data sets, their formats, and what is asked of them before anything is learned."""

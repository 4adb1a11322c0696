"""A policy behind HTTP: requests are answered in batches, networks with memory have sessions, newer checkpoints load.

`server.PolicyServer` is all of it but the web; `http` is the web.
"""

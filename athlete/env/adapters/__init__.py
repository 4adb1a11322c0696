"""Environments from elsewhere, seen as rows or as JAX environments: Gymnasium, EnvPool, gymnax."""

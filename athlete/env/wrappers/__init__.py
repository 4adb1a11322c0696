"""What goes around any JAX environment."""

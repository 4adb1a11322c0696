"""Gymnasium's classic control in JAX, number for number; `athlete.env.twins` finds the one that belongs to an id."""

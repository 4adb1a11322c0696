"""Networks as pairs of pure functions, `init` and `apply`: see `athlete.core.Model`."""

"""Where batches come from: see `athlete.core.Memory`."""

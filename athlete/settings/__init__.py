"""What users set: the table of settings, their checks, other spellings, and the configuration objects."""

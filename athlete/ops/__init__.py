"""The mathematics: small pure functions on arrays, tested with numbers worked out by hand."""

"""The version, in a module of its own so that building a wheel needs no import of the library."""

__version__ = "0.1.0"

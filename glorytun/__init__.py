"""Glorytun: one fast, secret, unbroken link out of several Internet links."""

__version__ = "0.1.0"

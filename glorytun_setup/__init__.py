"""The wizard `glorytun-setup`: from a fresh host to a working tunnel, and back."""

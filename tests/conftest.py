"""What holds for all tests."""

from hypothesis import settings

# They share the machine with others, such as builds: none with a property measures time.
settings.register_profile("shared", settings(), deadline=None)
settings.load_profile("shared")

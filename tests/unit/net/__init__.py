"""Tests of glorytun.net that need no privileges."""

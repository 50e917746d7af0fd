"""`python3 -m glorytun` is `glorytun`."""

from glorytun.cli.main import run

run()

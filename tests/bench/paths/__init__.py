"""`make bench-paths`: several emulated links under one tunnel."""

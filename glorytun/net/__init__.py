"""The only place with system calls on the data path."""

"""The control socket: JSON between a running tunnel and the commands."""

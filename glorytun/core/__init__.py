"""The protocol, sans-IO: no sockets, clocks, entropy, threads or logging in here."""

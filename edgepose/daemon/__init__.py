"""The running daemon: cameras, threads, signals, readiness."""

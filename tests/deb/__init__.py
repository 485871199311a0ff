"""The Debian package, in bare Debians."""

"""What docs/performance.rst gets its figures from: programs, run by hand; nothing in the package imports them."""

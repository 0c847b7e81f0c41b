"""Times graphc and what people would use instead on the same work: `python -m benchmarks`.  See README.md here."""

"""Remote data as local copies: object storage, hubs, named benchmarks."""

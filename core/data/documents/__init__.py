"""Documents into passages: blocks, chunks, source code."""

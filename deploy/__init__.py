"""What surrounds the product: the embedded stack, the demo, the benchmarks."""

"""Parts of the benchmarks of edge attention: settings, graphs, rates of the device, contestants."""

"""Parts of the GPU benchmark of edge attention: graphs, rates of the device, contestants."""

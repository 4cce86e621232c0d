"""What edge rules do on real data: density, stability, agreement between modalities; used by the case `edge-rules`."""

"""The encoder, its shared modules and the decoders."""

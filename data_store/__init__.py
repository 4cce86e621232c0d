"""Files in, store out: readers, validation, and the zarr store with its commit layer."""

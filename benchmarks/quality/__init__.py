"""What models make of real tissues: the data, the models and the page behind ``python -m benchmarks quality``."""

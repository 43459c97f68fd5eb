"""What carries a result somewhere: chat services and Prometheus. It knows records and computes no verdict."""

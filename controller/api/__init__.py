"""The controller's network face: gRPC requests in, messages out, who calls, TLS, metrics."""

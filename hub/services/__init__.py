"""gRPC servicers: they translate messages and decide nothing."""

"""Stubs of the controller's service, made from controller/proto at build time."""

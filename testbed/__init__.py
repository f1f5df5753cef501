"""Racks of workers and a switch, built with Mininet in network namespaces of this machine."""

"""Chakra execution traces (mlcommons/chakra): read and written without its code."""

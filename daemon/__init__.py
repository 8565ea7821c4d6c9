"""What one node does: keep its accounts connected, synced and within their limits.

The packages are the words of the architecture (see README, "The house"); `__main__` is the composition root and
the only file that sees everything.
"""

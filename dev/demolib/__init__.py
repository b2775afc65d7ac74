"""The story of `make demo`: what it is, what it does to a cluster, and the places where it can play."""

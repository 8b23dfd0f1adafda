"""Clusters of real servers on this machine: several nodes of one engine, on private ports."""

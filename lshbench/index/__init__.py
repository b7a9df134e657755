"""Indexes: how a query finds its candidates, one kind a module."""

"""Active-active replication of event hubs between AWS regions."""

__version__ = "0.1.0"

"""Composition root: reads the configuration and builds one worker. The only place that names concrete adapters."""

"""The embedded multi-region environment behind the demo command and the integration tests."""

"""The asyncio service: lease, read, decide, claim, publish, settle, checkpoint, drain."""

"""Bodies of large events in memory, for simulation and tests."""


class MemoryBodies:
    """Implements `ports.Bodies`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def put(self, name: str, body: bytes) -> None:
        self.objects[name] = body

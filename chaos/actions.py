"""What is done to the regions."""

from chaos.controls import running


def load() -> None:
    """The producers write."""
    running().load()


def kill_worker(region: str, index: int = 0) -> None:
    """SIGKILL one worker."""
    running().kill_worker(region, index)


def start_worker(region: str, index: int = 0) -> None:
    """Start a killed worker again, as ECS would."""
    running().start_worker(region, index)


def lose_region(region: str) -> None:
    """Cut the region off; its workers and its Redis are gone, its streams and tables stay."""
    running().lose_region(region)


def return_region(region: str) -> None:
    """The region comes back with an empty Redis."""
    running().return_region(region)


def finish_load() -> None:
    """Wait until the producers have written everything."""
    running().finish_load()


def put_copy(region: str) -> None:
    """Store a replica twice: shows that a drill can fail."""
    running().put_copy(region)

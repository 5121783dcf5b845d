"""What is done to the regions. Each action returns when it is done, and fails when it can't be."""

from chaos.controls import running


def until_written(share: float) -> int:
    """Wait until this share of the load (0 to 1) is written, so that what follows happens under load."""
    return running().call(lambda scene: scene.until_written(share))


def kill_worker(region: str, index: int = 0) -> None:
    """SIGKILL."""
    running().call(lambda scene: scene.kill_worker(region, index))


def start_worker(region: str, index: int = 0) -> None:
    """Start a killed worker again, as ECS would; it may not be ready yet."""
    running().call(lambda scene: scene.start_worker(region, index))


def lose_region(region: str) -> None:
    """Cut the region off and kill its workers and its Redis; its streams and tables stay, its producers pause."""
    running().call(lambda scene: scene.lose_region(region))


def return_region(region: str) -> None:
    """Bring a lost region back with an empty Redis; its workers are started and may not be ready yet."""
    running().call(lambda scene: scene.return_region(region))


def repeat_replica(region: str) -> str:
    """Store a replica in this region's hub a second time, for the verdict to find; returns its sequence number."""
    return running().call(lambda scene: scene.repeat_replica(region))

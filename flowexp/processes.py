"""The processes that share an evaluation, as torchrun starts them."""

import os
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import torch

__all__ = ["Processes", "accelerator_of_rank", "in_turn"]

_Item = TypeVar("_Item")


def in_turn(shares: Sequence[Sequence[_Item]]) -> list[_Item]:
    """The items that n processes shared, every n-th to each, in their order again."""
    turns = max(map(len, shares), default=0)
    return [share[i] for i in range(turns) for share in shares if i < len(share)]


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def accelerator_of_rank(count: int) -> int:
    """The number of this process's accelerator among ``count``: processes take them in turn."""
    return int(os.environ.get("LOCAL_RANK", "0")) % count if _world_size() > 1 else 0


class Processes:
    """This process's place among those that share the work; alone unless started otherwise.

    They exchange small states on the CPU, so the group is always gloo, on every device.
    """

    def __init__(self, *, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; allowed: 0 to {world_size - 1}")
        self.rank = rank
        self.world_size = world_size
        self._owns_group = False

    @classmethod
    def start(cls) -> Self:
        """The processes that torchrun's environment variables name; joins their group."""
        world_size = _world_size()
        if "RANK" not in os.environ or world_size == 1:
            return cls()
        processes = cls(rank=int(os.environ["RANK"]), world_size=world_size)
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
            processes._owns_group = True
        return processes

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def share(self, items: Sequence[_Item]) -> list[_Item]:
        """This process's items: every ``world_size``-th."""
        return list(items[self.rank :: self.world_size])

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            torch.distributed.barrier()

    def gather(self, item: _Item) -> list[_Item] | None:
        """The items of all processes in the order of their ranks, on the first; None elsewhere."""
        if self.world_size == 1:
            return [item]
        gathered: list[Any] | None = [None] * self.world_size if self.is_first else None
        torch.distributed.gather_object(item, gathered)
        return gathered

    def of_first(self, item: _Item) -> _Item:
        """The first process's item, on all of them; every process must call this."""
        if self.world_size == 1:
            return item
        items = [item]
        torch.distributed.broadcast_object_list(items)
        return items[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the group, if :meth:`start` joined it."""
        if self._owns_group:
            torch.distributed.destroy_process_group()
            self._owns_group = False

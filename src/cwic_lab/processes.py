"""The processes that train together: those that torchrun started, or this one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


def place_of(device: str) -> torch.device:
    """Where this process computes: on "cpu", on "cuda", or ("") on a GPU where there is one; each has its own GPU."""
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(kind, int(os.environ.get("LOCAL_RANK", 0)) if kind == "cuda" else None)


@contextmanager
def together(device: str) -> Iterator[None]:
    """The group of the processes that torchrun started, once in a process's life: a second one would wait forever."""
    started = "RANK" in os.environ
    if started:
        place = place_of(device)
        if place.type == "cuda":
            torch.cuda.set_device(place)
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    yield
    if started:
        dist.destroy_process_group()


def rank_and_world() -> tuple[int, int]:
    """This process's number, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def average_over_processes(values: Tensor) -> None:
    """Make values their mean over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a detached tensor over all processes; the tensor itself when there is one."""
    if not dist.is_initialized():
        return value
    value = value.clone()
    average_over_processes(value)
    return value


def wait_for_all() -> None:
    """Until each process has come here: what the first has written is there, and none leaves while another writes.

    Gloo may abort a process that leaves earlier.
    """
    if dist.is_initialized():
        dist.barrier()

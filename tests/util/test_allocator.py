import platform
import resource

import pytest
import torch

from util.machine import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_freed_block_is_used_again():
    keep_freed_memory()

    def fetched(tensors):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(tensors):
            torch.ones(2**24)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    fetched(20)
    # 64 MiB are 16,384 pages.
    assert fetched(10) < 16384

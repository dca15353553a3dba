"""PyNative launches its kernels synchronously: its dispatch thread would spin on a core between these tiny ones."""

import mindspore as ms

ms.runtime.launch_blocking()

"""What the fork server imports once, so that a job's process starts in milliseconds instead of seconds.

Nothing here may touch CUDA, start a thread that must live in the child, or import bitsandbytes.
"""

import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import core.run.process
import core.training.train  # noqa: F401

"""What the fork server imports once, so that a job's process starts in milliseconds instead of seconds.

Nothing here may initialise CUDA: a child of a process that has done so can never use it. peft imports
bitsandbytes, which asks every GPU for its capability and so initialises CUDA; sentence-transformers imports
peft. So where there is a GPU these three wait until the job's own process (1.5 s).
"""

import logging
import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # read once, when torch is imported

import accelerate  # noqa: F401
import datasets  # noqa: F401
import pyarrow  # noqa: F401
import sklearn  # noqa: F401
import torch
from transformers import AutoModel, AutoTokenizer, BertModel  # noqa: F401

import core.process.main

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on some CPUs it advises a package at every start

if not torch.cuda.is_available():  # asks the driver's management library, which initialises nothing
    import core.kinds.train  # noqa: F401

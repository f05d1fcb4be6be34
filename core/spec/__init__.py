"""What a job asks for. Pydantic only: the API, the worker, the client and the job's process all read it."""

from core.spec.embed import EmbedSpec
from core.spec.evaluate import EvaluateSpec
from core.spec.export import ExportSpec
from core.spec.job import JobSpec, Resources
from core.spec.mine import MineSpec
from core.spec.parse import SPEC_VERSION, AnyJobSpec, AnySpec, parse_spec
from core.spec.prepare import PrepareSpec
from core.spec.train import TrainSpec

__all__ = [
    "SPEC_VERSION",
    "AnyJobSpec",
    "AnySpec",
    "EmbedSpec",
    "EvaluateSpec",
    "ExportSpec",
    "JobSpec",
    "MineSpec",
    "PrepareSpec",
    "Resources",
    "TrainSpec",
    "parse_spec",
]

"""Kind -> the room that does it. The imports are inside: a job pays for the libraries that it uses."""

from core.data.rows.kept_reading import with_kept_readings
from core.families.prompts import with_own_prompts
from core.runtime.context import RunContext
from core.spec import parse_spec
from core.spec.unused import unused_settings


def run_job(context: RunContext) -> None:
    """Does the job of the context's request. Raises `Stopped` or a `JobFailure`."""
    spec = with_kept_readings(parse_spec(context.request.spec), context.place_of, context.notice)
    spec = with_own_prompts(spec, context)
    context.tell_unused(unused_settings(spec))
    match spec.kind:
        case "train":
            from core.training.train import train

            train(spec, context)
        case "mine":
            from core.mining.mine import mine

            mine(spec, context)
        case "prepare":
            from core.data.prepared.prepare import prepare

            prepare(spec, context)
        case "evaluate":
            from core.evaluation.evaluate import evaluate

            evaluate(spec, context)
        case "embed":
            from core.retrieval.embed import embed

            embed(spec, context)

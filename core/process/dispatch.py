"""Kind of job -> the function that does it. Imports are inside: a job pays for the libraries that it uses."""

from core.data.rows.kept_reading import with_kept_readings
from core.families.prompts import with_own_prompts
from core.runtime.context import RunContext
from core.spec.stored import read_stored_spec
from core.spec.unused import unused_settings


def run_job(context: RunContext) -> None:
    """Does the job of the context's request. Raises `Stopped` or a `JobFailure`."""
    stored = read_stored_spec(context.request.spec, context.request.spec_version)
    for path in stored.left_out:
        context.notice(
            f"{path} is in the stored spec of the job, but this version does not know it: it is left out.",
            "warning",
        )
    spec = with_kept_readings(stored.spec, context.place_of, context.notice)
    spec = with_own_prompts(spec, context)
    context.tell_unused(unused_settings(spec))
    match spec.kind:
        case "train":
            from core.kinds.train import train

            train(spec, context)
        case "mine":
            from core.kinds.mine import mine

            mine(spec, context)
        case "prepare":
            from core.kinds.prepare import prepare

            prepare(spec, context)
        case "evaluate":
            from core.kinds.evaluate import evaluate

            evaluate(spec, context)
        case "embed":
            from core.kinds.embed import embed

            embed(spec, context)
        case "export":
            from core.kinds.export import export

            export(spec, context)

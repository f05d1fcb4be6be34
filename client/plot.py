"""Curves of a job as a picture."""

from pathlib import Path

from core.errors import BadRequest
from core.jobs.views import MetricSeries


def plot(series: list[MetricSeries], path: Path, title: str) -> None:
    """Draw one panel for each metric, in a grid. Needs matplotlib (`pip install 'reason-service[train]'`)."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BadRequest("Plots need matplotlib: pip install matplotlib") from error
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise BadRequest(f"{path}: the file name must end in .png, .svg or .pdf")
    if not series:
        raise BadRequest("The job has no metrics yet.")
    columns = min(3, len(series))
    rows = -(-len(series) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    figure.suptitle(title)
    for axes, metric in zip(figure.subplots(rows, columns, squeeze=False).flat, series, strict=False):
        points = [(point.step, point.value) for point in metric.points if point.value is not None]
        axes.plot(
            [step for step, _ in points],
            [value for _, value in points],
            marker="." if len(points) < 40 else "",
        )
        axes.set(title=metric.name, xlabel="step")
    for axes in figure.axes[len(series) :]:
        axes.set_visible(False)
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise BadRequest(f"{path} cannot be written: {error.strerror}") from error

"""Which artifacts a job reads, as rows: so far only inside the job's inputs."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    made = op.create_table(
        "job_inputs",
        sa.Column("job_id", sa.String(length=255), nullable=False),
        sa.Column("artifact_id", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_inputs_job_id")),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], name=op.f("fk_job_inputs_artifact_id")),
        sa.PrimaryKeyConstraint("job_id", "artifact_id", name=op.f("pk_job_inputs")),
    )
    op.create_index(op.f("ix_job_inputs_artifact_id"), "job_inputs", ["artifact_id"])
    connection = op.get_bind()
    known = set(connection.scalars(sa.text("SELECT id FROM artifacts")))
    rows = set()
    for job_id, inputs in connection.execute(sa.text("SELECT id, inputs FROM jobs")):
        found = json.loads(inputs) if isinstance(inputs, str) else inputs or {}
        rows |= {(job_id, value.get("artifact")) for value in found.values()}
    values = [
        {"job_id": job, "artifact_id": artifact}
        for job, artifact in sorted(rows, key=str)
        if artifact in known
    ]
    if values:
        op.bulk_insert(made, values)


def downgrade() -> None:
    op.drop_index(op.f("ix_job_inputs_artifact_id"), "job_inputs")
    op.drop_table("job_inputs")

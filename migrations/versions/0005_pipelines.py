"""Pipelines: jobs that are created together, and one numbering of all their events."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "pipelines",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("stages", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("event_seq", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pipelines")),
    )
    op.create_index("ix_pipelines_owner", "pipelines", ["owner", "id"])
    # No foreign key: SQLite would copy the table, to whose rows others refer.
    op.add_column("jobs", sa.Column("pipeline_id", sa.String(length=255), nullable=True))
    op.add_column("jobs", sa.Column("stage", sa.String(length=64), nullable=True))
    op.create_index("ix_jobs_pipeline", "jobs", ["pipeline_id", "stage"])
    op.create_table(
        "pipeline_events",
        sa.Column("pipeline_id", sa.String(length=255), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=255), nullable=False),
        sa.Column("job_seq", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["pipeline_id"], ["pipelines.id"], name=op.f("fk_pipeline_events_pipeline_id")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_pipeline_events_job_id")),
        sa.PrimaryKeyConstraint("pipeline_id", "seq", name=op.f("pk_pipeline_events")),
    )


def downgrade() -> None:
    op.drop_table("pipeline_events")
    op.drop_index("ix_jobs_pipeline", "jobs")
    op.drop_column("jobs", "stage")
    op.drop_column("jobs", "pipeline_id")
    op.drop_index("ix_pipelines_owner", "pipelines")
    op.drop_table("pipelines")

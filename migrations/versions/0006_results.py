"""What the result of a job depends on, and holds on results that are being made."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("origin", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("result_key", sa.String(length=64), nullable=True))
    op.add_column("jobs", sa.Column("result_scope", sa.String(length=255), nullable=True))
    op.add_column("jobs", sa.Column("reuse", sa.Boolean(), nullable=True))
    op.add_column("jobs", sa.Column("reused_from", sa.String(length=255), nullable=True))
    op.create_index("ix_jobs_result", "jobs", ["result_key", "state"])
    op.create_table(
        "result_holds",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_result_holds_job_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_result_holds")),
    )
    op.create_index(op.f("ix_result_holds_job_id"), "result_holds", ["job_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_result_holds_job_id"), "result_holds")
    op.drop_table("result_holds")
    op.drop_index("ix_jobs_result", "jobs")
    for column in ("reused_from", "reuse", "result_scope", "result_key", "origin"):
        op.drop_column("jobs", column)

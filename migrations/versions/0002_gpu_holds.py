"""A GPU belongs to one running job, whichever worker of its host runs it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "gpu_holds",
        sa.Column("uuid", sa.String(length=255), nullable=False),
        sa.Column("job_id", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_gpu_holds_job_id")),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_gpu_holds")),
    )
    with op.batch_alter_table("gpu_holds") as batch_op:
        batch_op.create_index(batch_op.f("ix_gpu_holds_job_id"), ["job_id"])


def downgrade() -> None:
    op.drop_table("gpu_holds")

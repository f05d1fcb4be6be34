"""Artifacts have an owner: that of the job that made them, or the key that sent them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("artifacts") as batch_op:
        batch_op.add_column(sa.Column("owner", sa.String(length=255), nullable=True))
    op.execute("UPDATE artifacts SET owner = (SELECT owner FROM jobs WHERE jobs.id = artifacts.job_id)")
    op.create_index("ix_artifacts_owner", "artifacts", ["owner", "kind", "id"])
    op.create_index("ix_jobs_owner", "jobs", ["owner", "id"])


def downgrade() -> None:
    op.drop_index("ix_jobs_owner", "jobs")
    op.drop_index("ix_artifacts_owner", "artifacts")
    op.drop_column("artifacts", "owner")  # no copy of the table, to whose rows others refer

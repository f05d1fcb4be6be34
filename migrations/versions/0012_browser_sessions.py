"""Sessions of browsers that have signed in with a key, and an index for searching jobs by name."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "browser_sessions",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=255), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_browser_sessions_key_id")),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_browser_sessions")),
    )
    op.create_index(op.f("ix_browser_sessions_key_id"), "browser_sessions", ["key_id"])
    op.create_index(op.f("ix_browser_sessions_ends_at"), "browser_sessions", ["ends_at"])
    op.create_index("ix_jobs_name", "jobs", ["name", "id"])


def downgrade() -> None:
    op.drop_index("ix_jobs_name", "jobs")
    op.drop_table("browser_sessions")

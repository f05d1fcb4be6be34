"""Pins, and folders of the artifact storage to which no row refers."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("artifacts", sa.Column("pinned_at", moment, nullable=True))
    op.create_index("ix_artifacts_uri", "artifacts", ["uri"])
    op.create_table(
        "unreferenced_folders",
        sa.Column("uri", sa.String(length=2048), nullable=False),
        sa.Column("until", moment, nullable=False),
        sa.Column("removing", sa.Boolean(), nullable=False),
        sa.Column("token", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("uri", name=op.f("pk_unreferenced_folders")),
    )
    op.create_index(op.f("ix_unreferenced_folders_until"), "unreferenced_folders", ["until"])
    op.create_table(
        "last_versions",
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", name=op.f("pk_last_versions")),
    )


def downgrade() -> None:
    op.drop_table("last_versions")
    op.drop_table("unreferenced_folders")
    op.drop_index("ix_artifacts_uri", "artifacts")
    with op.batch_alter_table("artifacts") as table:
        table.drop_column("pinned_at")

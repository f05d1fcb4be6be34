"""The recipe that made the stages of a pipeline."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("pipelines", sa.Column("recipe", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("pipelines", "recipe")

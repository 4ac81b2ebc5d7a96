"""A month goes from open to sealed to closed and never back, and its instants are written once (C1, C2, C7)."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

REFUSE_REOPENING = """
create function refuse_reopening() returns trigger language plpgsql as $$
declare
    ways text[] := array['open', 'sealed', 'closed'];
begin
    if tg_op <> 'UPDATE' then
        raise exception 'months stay: % refused', lower(tg_op) using errcode = 'restrict_violation';
    end if;
    if new.period <> old.period or array_position(ways, new.state) < array_position(ways, old.state) then
        raise exception 'month % is % and cannot become %', old.period, old.state, new.state
            using errcode = 'restrict_violation';
    end if;
    if old.cutoff_at <> new.cutoff_at or (old.cutoff_at is not null and new.cutoff_at is null)
       or old.sealed_at <> new.sealed_at or (old.sealed_at is not null and new.sealed_at is null)
       or old.closed_at <> new.closed_at or (old.closed_at is not null and new.closed_at is null) then
        raise exception 'the instants of month % are written once', old.period using errcode = 'restrict_violation';
    end if;
    return new;
end $$
"""


def upgrade() -> None:
    op.execute(REFUSE_REOPENING)
    op.execute(
        "create trigger refuse_reopening before update or delete on periods "
        "for each row execute function refuse_reopening()"
    )
    op.execute(
        "create trigger refuse_truncate before truncate on periods "
        "for each statement execute function refuse_reopening()"
    )
    op.execute("alter table periods enable always trigger refuse_reopening")
    op.execute("alter table periods enable always trigger refuse_truncate")

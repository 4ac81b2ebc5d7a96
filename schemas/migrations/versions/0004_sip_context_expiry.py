"""How a month's SIP contexts are let go: by dropping their partition, and never while anything may ask for them (A10)."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# The 35 days are `attribution.context.context_age_max`: an event speaks for records received at most so much later.
DROP_SIP_CONTEXTS = """
create function drop_sip_contexts(month date) returns boolean language plpgsql as $$
declare
    contexts text := 'sip_contexts_partition_' || to_char(month, 'YYYY_MM');
    needed_until timestamptz := (month + interval '1 month')::timestamp at time zone 'UTC' + interval '35 days';
begin
    if not exists (select from periods where period = month)
       or exists (select from periods where period <= month and state <> 'closed') then
        raise exception 'the SIP contexts of % are kept: it is not closed, or a month before it is not', month
            using errcode = 'restrict_violation';
    end if;
    if exists (select from held_records where received_at < needed_until) then
        raise exception 'the SIP contexts of % are kept: a held record may need them', month
            using errcode = 'restrict_violation';
    end if;
    if to_regclass(contexts) is null then
        return false;
    end if;
    execute format('drop table %I', contexts);
    return true;
end $$
"""


def upgrade() -> None:
    op.execute(DROP_SIP_CONTEXTS)

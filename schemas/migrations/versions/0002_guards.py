"""What the database itself refuses (A7, A9, C7), and how a month is made (L1)."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Columns named in the trigger's arguments may be written once, from null; all else stands for ever.
REFUSE_REWRITE = """
create function refuse_rewrite() returns trigger language plpgsql as $$
declare
    once text[] := coalesce(tg_argv, '{}');
    written_once text;
begin
    if tg_op <> 'UPDATE' then
        raise exception '% is append-only: % refused', tg_table_name, lower(tg_op) using errcode = 'restrict_violation';
    end if;
    if to_jsonb(new) - once is distinct from to_jsonb(old) - once then
        raise exception '% is append-only: a row may not change', tg_table_name using errcode = 'restrict_violation';
    end if;
    foreach written_once in array once loop
        if to_jsonb(old) -> written_once <> 'null'::jsonb
           and to_jsonb(old) -> written_once is distinct from to_jsonb(new) -> written_once then
            raise exception '%.% is written once', tg_table_name, written_once using errcode = 'restrict_violation';
        end if;
    end loop;
    return new;
end $$
"""

# Once the installation runs, every change carries the instant that the directory's clock gave it (A7, A8).
REFUSE_BACKDATING = """
create function refuse_backdating() returns trigger language plpgsql as $$
declare
    running boolean := (select state = 'running' from installation);
    clock timestamptz := (select last_made_at from directory_clock);
    wrong timestamptz;
begin
    if not coalesce(running, false) then
        return null;
    end if;
    if tg_op = 'INSERT' then
        select made_at into wrong from changed where made_at is distinct from clock limit 1;
    else
        select ended_at into wrong from changed where ended_at is not null and ended_at is distinct from clock limit 1;
    end if;
    if found then
        raise exception 'a change to % must be made at the directory''s present instant %, not at %',
            tg_table_name, clock, wrong using errcode = 'restrict_violation';
    end if;
    return null;
end $$
"""

REFUSE_OVERLAP = """
create function refuse_overlap() returns trigger language plpgsql as $$
declare
    asset text := tg_argv[0];
    clash text;
begin
    execute format(
        'select later.%1$I::text from changed
           join %2$I as later on later.%1$I = changed.%1$I and later.id <> changed.id
            and later.made_at < coalesce(changed.ended_at, ''infinity'')
            and changed.made_at < coalesce(later.ended_at, ''infinity'')
          limit 1', asset, tg_table_name) into clash;
    if clash is not null then
        raise exception '% already has an assignment in that time', clash using errcode = 'exclusion_violation';
    end if;
    return null;
end $$
"""

# Makes a month: its row, its ledger partition with guards that no setting switches off, its SIP context partition.
MAKE_PERIOD = """
create function make_period(month date) returns boolean language plpgsql as $$
declare
    next_month date := (month + interval '1 month')::date;
    suffix text := to_char(month, 'YYYY_MM');
    ledger text := 'usage_records_partition_' || suffix;
    contexts text := 'sip_contexts_partition_' || suffix;
begin
    if extract(day from month) <> 1 then
        raise exception '% is not the first day of a month', month;
    end if;
    perform pg_advisory_xact_lock(7002);
    if exists (select from periods where period = month) then
        return false;
    end if;
    if exists (select from periods where period > month)
       and not exists (select from periods where period < month and state = 'open')
       and exists (select from periods where state <> 'open') then
        raise exception 'month % lies before months that are already sealed', month;
    end if;
    execute format('create table %I partition of usage_records for values from (%L) to (%L)', ledger, month, next_month);
    execute format('create trigger refuse_rewrite before update or delete on %I
                    for each row execute function refuse_rewrite()', ledger);
    execute format('create trigger refuse_truncate before truncate on %I
                    for each statement execute function refuse_rewrite()', ledger);
    execute format('alter table %I enable always trigger refuse_rewrite', ledger);
    execute format('alter table %I enable always trigger refuse_truncate', ledger);
    execute format('create table %I partition of sip_contexts for values from (%L) to (%L)',
                   contexts, month::timestamp at time zone 'UTC', next_month::timestamp at time zone 'UTC');
    insert into periods (period) values (month);
    return true;
end $$
"""

APPEND_ONLY = {
    "accounts": (),
    "tenants": ("ended_at",),
    "tenant_details": ("address_validated_at",),
    "number_assignments": ("ended_at",),
    "ip_assignments": ("ended_at",),
    "tariffs": (),
    "statements": (),
    "period_boundaries": (),
    "phantom_fees": (),
    "billing_profiles": ("ended_at",),
}
CLOCKED = ("number_assignments", "ip_assignments", "tenants")
ASSETS = {"number_assignments": "number", "ip_assignments": "network"}


def upgrade() -> None:
    for function in (REFUSE_REWRITE, REFUSE_BACKDATING, REFUSE_OVERLAP, MAKE_PERIOD):
        op.execute(function)
    for table, written_once in APPEND_ONLY.items():
        columns = ", ".join(f"'{column}'" for column in written_once)
        op.execute(
            f"create trigger refuse_rewrite before update or delete on {table} "
            f"for each row execute function refuse_rewrite({columns})"
        )
        op.execute(
            f"create trigger refuse_truncate before truncate on {table} "
            "for each statement execute function refuse_rewrite()"
        )
        op.execute(f"alter table {table} enable always trigger refuse_rewrite")
        op.execute(f"alter table {table} enable always trigger refuse_truncate")
    op.execute(
        "create trigger refuse_truncate before truncate on usage_records "
        "for each statement execute function refuse_rewrite()"
    )
    for table in CLOCKED:
        for event in ("insert", "update"):
            op.execute(
                f"create trigger refuse_backdated_{event} after {event} on {table} "
                "referencing new table as changed for each statement execute function refuse_backdating()"
            )
    for table, asset in ASSETS.items():
        op.execute(
            f"create trigger refuse_overlap after insert on {table} "
            f"referencing new table as changed for each statement execute function refuse_overlap('{asset}')"
        )
    op.execute("create table sip_contexts_partition_other partition of sip_contexts default")
    op.execute("insert into installation (id) values (1)")
    op.execute("insert into directory_clock (id, last_made_at) values (1, clock_timestamp())")
    op.execute(
        "create view conservation as "
        "select p.topic, c.outcome, c.reason, sum(c.records)::bigint as records "
        "from outcome_counts c join stream_positions p on p.id = c.position_id group by 1, 2, 3"
    )
    op.execute(
        "create view monthly_usage_totals as "
        "select period, usage_period, account_id, tenant_id, usage_class, currency, "
        "sum(attempts)::bigint as attempts, sum(calls)::bigint as calls, "
        "sum(answered_seconds) as answered_seconds, sum(billed_seconds)::bigint as billed_seconds, sum(cost) as cost "
        "from monthly_usage group by 1, 2, 3, 4, 5, 6"
    )

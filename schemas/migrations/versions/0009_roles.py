"""Least privilege: who may do what, as group roles that an operator grants to login users; applications own nothing.

Roles belong to the whole cluster, so each is made only where it is missing. Who may not make roles is told what an
administrator has to run first.
"""

from alembic import op
from sqlalchemy import text

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

OWNER = "tenant_billing_migration"

INGEST, CLOSE, INVOICING, DIRECTORY, READING = (
    f"tenant_billing_{name}" for name in ("ingest", "close", "invoicing", "directory", "reading")
)

# What each may do beside reading; `update (column, …)` names all that it may change.
DIRECTORY_READ = ("accounts", "tenants", "number_assignments", "ip_assignments", "tariffs")
GRANTS = {
    # the agents, the resolver of held records (which lets old SIP contexts go), replays from quarantine
    INGEST: {
        **dict.fromkeys((*DIRECTORY_READ, "installation", "periods"), "select"),
        "directory_clock": "select, update (last_made_at)",  # the fence that each load of the directory takes (A7)
        "stream_positions": "select, insert, update",
        "usage_records": "select, insert",
        "monthly_usage": "select, insert, update",
        "midnight_identities": "select, insert",
        "held_records": "select, insert, update, delete",
        "quarantine": "select, insert, update, delete",
        "outcome_counts": "select, insert, update",
        "sip_contexts": "select, insert",
        "sip_contexts_partition_other": "select, delete",  # strays that nothing can ask for any more (A10)
        "conservation": "select",
    },
    # the closer, the relay, `period close`
    CLOSE: {
        **dict.fromkeys((*DIRECTORY_READ, "installation", "tenant_details"), "select"),
        **dict.fromkeys(("usage_records", "monthly_usage", "monthly_usage_totals"), "select"),
        **dict.fromkeys(("stream_positions", "held_records", "quarantine", "sip_contexts"), "select"),
        **dict.fromkeys(("outcome_counts", "conservation"), "select"),
        "directory_clock": "select, update (last_made_at)",  # the same fence: what is closed is what was made by then
        "periods": "select, update (state, cutoff_at, sealed_at, closed_at)",
        "period_boundaries": "select, insert",
        "statements": "select, insert",
        "outbox": "select, insert, update (published_at, kafka_partition, kafka_offset)",
    },
    # the invoicing process, and the commands about invoices
    INVOICING: {
        **dict.fromkeys((*DIRECTORY_READ, "installation", "tenant_details"), "select"),
        **dict.fromkeys(("periods", "statements", "billing_profiles"), "select"),
        "invoices": "select, insert, update",
        "invoice_steps": "select, insert, update",
        "phantom_fees": "select, insert",
        "refused_events": "select, insert, update",
        "stripe_customers": "select, insert, update",
        "stripe_links": "select, update (paused_at, paused_reason)",
    },
    # what people change: accounts, tenants, numbers, IPs, tariffs, billing profiles, Stripe links
    DIRECTORY: {
        "accounts": "select, insert, update (name)",  # no row may change; `for update` asks for the privilege
        "tenants": "select, insert, update (ended_at)",
        "tenant_details": "select, insert, update (address_validated_at)",
        "number_assignments": "select, insert, update (ended_at)",
        "ip_assignments": "select, insert, update (ended_at)",
        "tariffs": "select, insert",
        "billing_profiles": "select, insert, update (ended_at)",
        "stripe_links": "select, insert, update",
        "stripe_customers": "select, insert, update",
        "directory_clock": "select, update (last_made_at)",
        "installation": "select, update (state, bootstrap_finished_at)",
        **dict.fromkeys(("periods", "invoices", "statements"), "select"),
    },
}
MAY_CALL = {"make_period(date)": (CLOSE, DIRECTORY), "drop_sip_contexts(date)": (INGEST,)}
FUNCTIONS_THAT_READ = ("refuse_backdating()", "refuse_overlap()")


def upgrade() -> None:
    for role in (OWNER, INGEST, CLOSE, INVOICING, DIRECTORY, READING):
        _make_role(role)
    schema = op.get_bind().scalar(text("select quote_ident(current_schema())"))
    op.execute(f"grant usage, create on schema {schema} to {OWNER}")
    for role, tables in GRANTS.items():
        op.execute(f"grant usage on schema {schema} to {role}")
        for table, privileges in tables.items():
            op.execute(f"grant {privileges} on {table} to {role}")
    op.execute(f"grant usage on schema {schema} to {READING}")
    op.execute(f"grant select on all tables in schema {schema} to {READING}")
    _fix_functions(schema)
    _give_to_owner(schema)
    # what later migrations make, can be read by those who read
    op.execute(
        f"alter default privileges for role {OWNER} in schema {schema} grant select on tables to {READING}"
    )


def _make_role(role: str) -> None:
    """Another database of the cluster may have made it, even at this moment."""
    op.execute(f"""
        do $$ begin
            if not exists (select from pg_roles where rolname = '{role}') then
                create role {role} nologin;
            end if;
        exception
            when duplicate_object or unique_violation then null;
            when insufficient_privilege then
                raise exception 'this user may not make roles: an administrator runs deploy/logins.sql first'
                    using errcode = 'insufficient_privilege';
        end $$""")


def _fix_functions(schema: str) -> None:
    """Functions that make and drop partitions run as the owner, for those who may call them, on our tables only."""
    for function, callers in MAY_CALL.items():
        op.execute(f"alter function {function} security definer")
        op.execute(f"alter function {function} set search_path = {schema}, pg_temp")
        op.execute(f"revoke all on function {function} from public")
        op.execute(f"grant execute on function {function} to {', '.join(callers)}")
    for function in FUNCTIONS_THAT_READ:  # a temporary table of the caller's must not be taken for ours
        op.execute(f"alter function {function} set search_path = {schema}, pg_temp")


def _give_to_owner(schema: str) -> None:
    """The owner role owns all that is ours, whoever migrates; applications are none of its members."""
    op.execute(f"""
        do $$ declare
            ours record;
            before oid := (select relowner from pg_class where oid = 'accounts'::regclass);
        begin
            if not (select rolsuper from pg_roles where rolname = current_user)
               and not pg_has_role('{OWNER}', 'usage') then
                begin
                    execute format('grant {OWNER} to %I', current_user);
                exception when insufficient_privilege then null;
                end;
            end if;
            for ours in
                select c.oid::regclass as name, case c.relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end as kind
                from pg_class c
                where c.relnamespace = '{schema}'::regnamespace and c.relkind in ('r', 'p', 'v', 'S')
                  and c.relowner = before
                  and not exists (select from pg_depend d where d.objid = c.oid and d.deptype in ('a', 'i') and c.relkind = 'S')
                  and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')
                order by c.oid
            loop
                execute format('alter %s %s owner to {OWNER}', ours.kind, ours.name);
            end loop;
            for ours in
                select p.oid::regprocedure as name from pg_proc p
                where p.pronamespace = '{schema}'::regnamespace and p.proowner = before
                  and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
                order by p.oid
            loop
                execute format('alter function %s owner to {OWNER}', ours.name);
            end loop;
        end $$""")  # noqa: S608 (our own names)
